"""Raw rows of problem files to valid problems, or to rejections that say why. Rows are untrusted: nothing here raises."""

import hashlib
import json
import math
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from offsft.boxed import boxed_answer
from offsft.config import Domain, Fields, Suite
from offsft.records import Problem

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_E_NOTATION = re.compile(r"^([-+]?\d+(?:\.\d*)?)[eE]\+?(-?\d+)$")
"""As Minerva's answers have it; as mathematics, `4.5e33` would be a product with Euler's number."""
_RAW_CHARACTERS = 2000


class Reason(StrEnum):
    """Why a row is in quarantine."""

    NOT_UTF8 = "not_utf8"
    BAD_JSON = "bad_json"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    EMPTY_FIELD = "empty_field"
    WRONG_TYPE = "wrong_type"
    NO_ANSWER = "no_answer"
    DUPLICATE = "duplicate"
    TOO_LONG = "too_long"
    UNREADABLE_FILE = "unreadable_file"
    POISON = "poison"
    CONTAMINATED = "contaminated"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in its file; `line` counts from 1 (rows of a Parquet file too)."""

    file: str
    line: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used. `detail` is one line; `raw` the row's beginning as text."""

    file: str
    line: int
    reason: Reason
    detail: str
    raw: str


class _Unusable(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def parse(row: RawRow, fmt: str, fields: Fields, domain: Domain = "math") -> Problem | Rejected:
    """One raw row by the mapping `fmt` (`own`, `gsm8k`, `math`, `numina`), as a problem of the domain."""
    try:
        raw = _decoded(row.raw)
        problem, solution, answer = _MAPPINGS[fmt](raw, fields)
        problem, solution, answer = _clean(problem), _clean(solution), None if answer is None else _clean(answer)
        if not problem:
            raise _Unusable(Reason.EMPTY_FIELD, "the problem is empty")
        if not solution:
            raise _Unusable(Reason.EMPTY_FIELD, "the solution is empty")
        check = _check(raw, fields)
        if domain == "choice":
            problem, answer = _with_choices(problem, answer or boxed_answer(solution) or "", check)
        if domain == "code":
            if not check.get("tests"):
                raise _Unusable(
                    Reason.MISSING_FIELD, "no tests; name the field that holds them (data.fields.tests=...)"
                )
            return Problem(content_id(problem), problem, solution, answer or "", check)
        if domain == "free" and answer:
            return Problem(content_id(problem), problem, solution, answer, check)
        answer = answer or boxed_answer(solution)
        if not answer:
            raise _Unusable(
                Reason.NO_ANSWER,
                "no answer: the solution ends in no \\boxed{...}; name the field that holds it (data.fields.answer=...)",
            )
        if boxed_answer(solution) is None:
            solution = f"{solution}\nThe answer is \\boxed{{{answer}}}."
        return Problem(content_id(problem), problem, solution, answer, check)
    except _Unusable as unusable:
        return _rejected(row, unusable)


def parse_suite(row: RawRow, suite: Suite) -> Problem | Rejected:
    """One raw row of a benchmark; the problem's id is the suite's name and the row's line, and it has no solution."""
    try:
        tree = _decoded(row.raw)
        problem, answer = _clean(_value(tree, suite.problem)), _clean(_suite_answer(tree, suite))
        if not problem or not answer:
            raise _Unusable(Reason.EMPTY_FIELD, f"the {'answer' if problem else 'problem'} is empty")
        answer = _E_NOTATION.sub(r"\1 \\times 10^{\2}", answer)
        return Problem(f"{suite.name}-{row.line}", problem, "", answer, _suite_check(tree, suite))
    except _Unusable as unusable:
        return _rejected(row, unusable)


def _suite_check(row: dict[str, Any], suite: Suite) -> dict[str, Any]:
    """What a row tells the verifier; fields without a value say nothing."""
    check = {name: row[field] for name, field in suite.check.items() if row.get(field) not in (None, "")}
    for name in check.keys() & {"absolute", "relative"}:
        try:
            check[name] = float(check[name])
        except (TypeError, ValueError):
            raise _Unusable(Reason.WRONG_TYPE, f"the field {suite.check[name]!r} holds no number") from None
    return check


def _suite_answer(row: dict[str, Any], suite: Suite) -> str:
    if suite.answer_form == "boxed":
        answer = boxed_answer(_value(row, suite.answer))
        if not answer:
            raise _Unusable(Reason.NO_ANSWER, f"the field {suite.answer!r} holds no \\boxed{{}}")
        return answer
    if suite.answer_form == "hashes":
        _, mark, answer = _value(row, suite.answer).rpartition("####")
        if not mark:
            raise _Unusable(Reason.NO_ANSWER, f"the field {suite.answer!r} holds no ####")
        return answer
    value = row.get(suite.answer)
    if isinstance(value, list) and value:
        texts = [_value({suite.answer: each}, suite.answer, numbers=True) for each in value]
        return ", ".join(texts).replace("$", "")  # typesetting only: the verifier reads an answer as mathematics
    return _value(row, suite.answer, numbers=True)


def _rejected(row: RawRow, unusable: _Unusable) -> Rejected:
    raw = row.raw[:_RAW_CHARACTERS].decode("utf-8", "replace")
    return Rejected(row.file, row.line, unusable.reason, " ".join(_clean(str(unusable)).split()), raw)


def _check(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """What the row says for the verifier, cleaned as all texts are."""
    check: Any = {} if fields.check is None else row.get(fields.check) or {}
    if isinstance(check, str):
        try:
            check = json.loads(check)
        except (ValueError, RecursionError):
            check = None
    if not isinstance(check, dict):
        raise _Unusable(Reason.WRONG_TYPE, f"the field {fields.check!r} holds no object (data.fields.check)")
    if fields.choices is not None:
        check = check | {"choices": _texts(row, fields.choices, "data.fields.choices")}
    if fields.tests is not None:
        check = check | {"tests": "\n".join(_texts(row, fields.tests, "data.fields.tests"))}
    # Neither a lone surrogate nor what JSON lacks may reach a table.
    return json.loads(_clean(json.dumps(check, ensure_ascii=False, default=str)))


def _texts(row: dict[str, Any], name: str, setting: str) -> list[str]:
    value = row.get(name)
    if isinstance(value, list) and value and all(isinstance(item, str | int | float) for item in value):
        return [str(item) for item in value]
    return [_value(row, name, setting)]


def _with_choices(problem: str, answer: str, check: dict[str, Any]) -> tuple[str, str]:
    """The problem with its choices below, and the answer as a letter."""
    choices = [str(choice) for choice in check.get("choices", [])]
    if not choices:
        return problem, answer
    letters = "ABCDEFGHIJKLMNOP"[: len(choices)]
    bare = answer.strip().strip("().")
    if len(choices) > len(letters):
        raise _Unusable(
            Reason.WRONG_TYPE, f"{len(choices)} choices; at most {len(letters)} can be told apart by letters"
        )
    if answer in choices:
        letter = letters[choices.index(answer)]
    elif bare.isdecimal() and int(bare) < len(choices):
        letter = letters[int(bare)]
    elif len(bare) == 1 and bare.upper() in letters:
        letter = bare.upper()
    else:
        raise _Unusable(
            Reason.NO_ANSWER, f"the answer {answer[:60]!r} is neither a letter, a number nor the text of a choice"
        )
    listed = "\n".join(f"{mark}. {choice}" for mark, choice in zip(letters, choices, strict=True))
    return f"{problem}\n\n{listed}", letter


def content_id(problem: str) -> str:
    """A hash (32 hex digits) of the problem's text, blind to Unicode form and white space."""
    text = " ".join(unicodedata.normalize("NFC", problem).split())
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8; save the file as UTF-8") from None
    try:
        tree = json.loads(text)
    except RecursionError:
        raise _Unusable(Reason.BAD_JSON, "nested too deeply") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise _Unusable(Reason.BAD_JSON, f"not valid JSON: {what} at character {error.pos + 1}") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise _Unusable(Reason.BAD_JSON, "a number with too many digits; write it as text") from None
    if not isinstance(tree, dict):
        raise _Unusable(Reason.NOT_AN_OBJECT, f"a row must be a JSON object, this is {_kind(tree)}")
    return tree


def _own(row: dict[str, Any], fields: Fields) -> tuple[str, str, str | None]:
    answer = None if fields.answer is None else _value(row, fields.answer, "data.fields.answer", numbers=True)
    problem = _value(row, fields.problem, "data.fields.problem")
    return problem, _value(row, fields.solution, "data.fields.solution"), answer


def _gsm8k(row: dict[str, Any], _: Fields) -> tuple[str, str, str | None]:
    """`answer` is the worked solution with `<<48/2=24>>` marks; its last line is `#### 72`."""
    worked, mark, answer = _value(row, "answer").strip().rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not answer or "\n" in answer:
        raise _Unusable(Reason.NO_ANSWER, "the last line of the field 'answer' is not `#### ` and the answer")
    solution = _CALCULATOR.sub("", worked).strip()
    return _value(row, "question"), f"{solution}\nThe answer is \\boxed{{{answer}}}." if solution else "", answer


def _math(row: dict[str, Any], _: Fields) -> tuple[str, str, str | None]:
    answer = _value(row, "answer", numbers=True) if row.get("answer") not in (None, "") else None
    return _value(row, "problem"), _value(row, "solution"), answer


def _numina(row: dict[str, Any], fields: Fields) -> tuple[str, str, str | None]:
    """As `math`; or `messages` alone, of which the first two turns are problem and solution."""
    if "problem" in row or "messages" not in row:
        return _math(row, fields)
    turns = row["messages"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise _Unusable(Reason.WRONG_TYPE, "the field 'messages' is not a list of objects")
    by_role = {turn.get("role"): turn.get("content") for turn in reversed(turns) if isinstance(turn.get("role"), str)}
    if not {"user", "assistant"} <= by_role.keys():
        raise _Unusable(Reason.MISSING_FIELD, "'messages' holds no turn of the user, or none of the assistant")
    return _value(by_role, "user"), _value(by_role, "assistant"), None


_MAPPINGS = {"own": _own, "gsm8k": _gsm8k, "math": _math, "numina": _numina}


def _value(row: dict[str, Any], name: str, setting: str | None = None, *, numbers: bool = False) -> str:
    if name not in row:
        has = ", ".join(sorted(map(str, row))[:12]) or "no fields"
        hint = f"; set {setting}=..." if setting else "; is this the right data.format?"
        raise _Unusable(Reason.MISSING_FIELD, f"the field {name!r} is missing; the row has: {has}{hint}")
    value = row[name]
    if numbers and not isinstance(value, bool):
        if isinstance(value, int):
            return str(value)
        if isinstance(value, float) and math.isfinite(value):
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if not isinstance(value, str):
        raise _Unusable(Reason.WRONG_TYPE, f"the field {name!r} holds {_kind(value)}, not text")
    if not value.strip():
        raise _Unusable(Reason.EMPTY_FIELD, f"the field {name!r} is empty")
    return value


def _clean(text: str) -> str:
    """Without NULs and lone surrogates, which neither Parquet nor a tokenizer takes, and without outer white space."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object")
