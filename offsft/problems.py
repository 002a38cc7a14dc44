"""Raw rows of problem files to valid problems, or to rejections that say why. Rows are untrusted: nothing here raises."""

import hashlib
import json
import math
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from offsft.boxed import last_boxed
from offsft.config import Fields
from offsft.records import Problem

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
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


def parse(row: RawRow, fmt: str, fields: Fields) -> Problem | Rejected:
    """One raw row by the mapping `fmt` (`own`, `gsm8k`, `math`, `numina`)."""
    try:
        problem, solution, answer = _MAPPINGS[fmt](_decoded(row.raw), fields)
        problem, solution = _clean(problem), _clean(solution)
        if not problem:
            raise _Unusable(Reason.EMPTY_FIELD, "the problem is empty")
        if not solution:
            raise _Unusable(Reason.EMPTY_FIELD, "the solution is empty")
        answer = (answer if answer is not None else last_boxed(solution) or "").strip()
        if not answer:
            raise _Unusable(
                Reason.NO_ANSWER,
                "no answer: the solution ends in no \\boxed{...}; name the field that holds it (data.fields.answer=...)",
            )
        if last_boxed(solution) is None:
            solution = f"{solution}\nThe answer is \\boxed{{{answer}}}."
        return Problem(content_id(problem), problem, solution, answer)
    except _Unusable as unusable:
        raw = row.raw[:_RAW_CHARACTERS].decode("utf-8", "replace")
        return Rejected(row.file, row.line, unusable.reason, str(unusable), raw)


def content_id(problem: str) -> str:
    """A hash (32 hex digits) of the problem's text, blind to Unicode form and white space."""
    text = " ".join(unicodedata.normalize("NFC", problem).split())
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8; save the file as UTF-8") from None
    try:
        tree = json.loads(text)
    except RecursionError:
        raise _Unusable(Reason.BAD_JSON, "nested too deeply") from None
    except ValueError as error:
        raise _Unusable(Reason.BAD_JSON, f"not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise _Unusable(Reason.NOT_AN_OBJECT, f"a row must be a JSON object, this is {_kind(tree)}")
    return tree


def _own(row: dict[str, Any], fields: Fields) -> tuple[str, str, str | None]:
    answer = None if fields.answer is None else _value(row, fields.answer, "data.fields.answer", numbers=True)
    problem = _value(row, fields.problem, "data.fields.problem")
    return problem, _value(row, fields.solution, "data.fields.solution"), answer


def _gsm8k(row: dict[str, Any], _: Fields) -> tuple[str, str, str | None]:
    """`answer` is the worked solution with `<<48/2=24>>` marks; its last line is `#### 72`."""
    worked, mark, answer = _value(row, "answer").rpartition("####")
    if not mark or not answer.strip():
        raise _Unusable(Reason.NO_ANSWER, "the field 'answer' does not end in `#### ` and the answer")
    solution = _CALCULATOR.sub("", worked).strip()
    answer = answer.strip().replace(",", "")
    return _value(row, "question"), f"{solution}\nThe answer is \\boxed{{{answer}}}." if solution else "", answer


def _math(row: dict[str, Any], _: Fields) -> tuple[str, str, str | None]:
    answer = _value(row, "answer", numbers=True) if row.get("answer") is not None else None
    return _value(row, "problem"), _value(row, "solution"), answer


_MAPPINGS = {"own": _own, "gsm8k": _gsm8k, "math": _math, "numina": _math}


def _value(row: dict[str, Any], name: str, setting: str | None = None, *, numbers: bool = False) -> str:
    if name not in row:
        has = ", ".join(sorted(map(str, row))[:12]) or "no fields"
        hint = f"; set {setting}=..." if setting else "; is this the right data.format?"
        raise _Unusable(Reason.MISSING_FIELD, f"the field {name!r} is missing; the row has: {has}{hint}")
    value = row[name]
    if numbers and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
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
