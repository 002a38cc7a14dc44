"""Parse raw rows of problem files into problems or rejections with a reason. Rows are untrusted: nothing raises."""

import hashlib
import json
import unicodedata
from typing import Any

from offsft.config import Domain, Fields
from offsft.data.choices import Choices, Column, letter_of, read_choices, stated_letter
from offsft.data.layouts import Parts, fields_of, parts_of, why_no_solution
from offsft.data.references import answer_text, check_agreement, check_escapes, refuse_no_answer, solution_answer
from offsft.data.rows import RawRow, Reason, Rejected, Unusable, clean, decode, kind_of, reject
from offsft.data.values import find, get
from offsft.records import Problem
from offsft.verify.code_tests import SIDE_FIELDS, TEST_FIELDS, why_untestable


def parse(
    row: RawRow,
    form: str,
    fields: Fields,
    domain: Domain = "math",
    *,
    held_out: bool = False,
    column: Column | None = None,
) -> Problem | Rejected:
    """Parse one raw row by the layout `form` (`own` reads `fields`) into a problem of the domain.

    Held-out rows need no solution. `column` says what a column of choices' answers is; None: the row alone decides.
    """
    try:
        raw = decode(row.raw)
        parts = parts_of(raw, form, fields)
        fields = fields_of(form, fields)
        problem, solution = clean(parts.problem), clean(parts.solution or "")
        if not problem:
            raise Unusable(Reason.EMPTY_FIELD, "the problem is empty")
        if not solution and not held_out:
            raise why_no_solution(raw, form, fields)
        check = _check(raw, fields, domain)
        if domain == "code":
            return _code_problem(problem, solution, parts.answer, check)
        check_escapes(problem=problem, solution=solution)
        if domain == "choice":
            return _choice_problem(problem, solution, parts.answer, check, _choices(raw, fields, check, problem), column, fields)  # fmt: skip
        if domain == "free" and isinstance(parts.answer, str) and parts.answer.strip():
            return Problem(content_id(problem), problem, solution, clean(parts.answer), check)
        return _math_problem(problem, solution, parts, fields, check)
    except Unusable as unusable:
        return reject(row, unusable)


def _math_problem(problem: str, solution: str, parts: Parts, fields: Fields, check: dict[str, Any]) -> Problem:
    """A problem with a final answer: its field's, else the one that the solution states."""
    name = fields.answer or "answer"
    answer = clean(answer_text(parts.answer, name) or "")
    stated, is_boxed = solution_answer(solution)
    if answer:
        check_escapes(answer=answer)
        check_agreement(answer, stated)
    else:
        answer = clean(stated or "")
        refuse_no_answer(answer, "solution")
    if not answer:
        raise Unusable(
            Reason.NO_ANSWER,
            "no answer: the solution states none, in no \\boxed{...} and no sentence; name the field that holds it"
            " (data.fields.answer=...)",
        )
    if solution and not is_boxed:
        solution = f"{solution}\nThe answer is \\boxed{{{answer}}}."
    return Problem(content_id(problem), problem, solution, answer, check)


def _choice_problem(
    problem: str,
    solution: str,
    answer: Any,
    check: dict[str, Any],
    choices: Choices,
    column: Column | None,
    fields: Fields,
) -> Problem:
    """A problem with its choices below; its answer is a letter."""
    stated = stated_letter(solution, choices) if solution else None
    if answer is None or answer == "" or answer == []:
        if stated is None:
            raise Unusable(Reason.NO_ANSWER, "no answer: the solution chooses none; set data.fields.answer=...")
        letter = stated
    else:
        letter = letter_of(answer, choices, column, fields.answer_is)
        if stated not in (None, letter):
            detail = f"the answer's field says {letter}, and the solution ends in {stated}"
            raise Unusable(Reason.CONTRADICTION, detail)
    if solution and solution_answer(solution)[1] is False:
        solution = f"{solution}\nThe answer is \\boxed{{{letter}}}."
    asked = choices.below(problem)
    return Problem(content_id(asked), asked, solution, letter, check | ({"choices": choices.texts} if choices.texts else {}))  # fmt: skip


def _choices(row: dict[str, Any], fields: Fields, check: dict[str, Any], problem: str) -> Choices:
    """The row's choices; none if they are part of the problem's text."""
    if fields.choices is not None:
        return read_choices(row, fields, problem)
    return read_choices(check, Fields(choices="choices"), problem) if check.get("choices") else Choices([], [])


def _code_problem(problem: str, solution: str, answer: Any, check: dict[str, Any]) -> Problem:
    """A problem that tests judge; it needs no answer."""
    if not any(check.get(name) for name in TEST_FIELDS):
        raise Unusable(Reason.MISSING_FIELD, "no tests; name the field that holds them (data.fields.tests=...)")
    if why := why_untestable(check, solution):
        raise Unusable(Reason.UNTESTABLE, why)
    return Problem(content_id(problem), problem, solution, clean(answer) if isinstance(answer, str) else "", check)


def _check(row: dict[str, Any], fields: Fields, domain: Domain) -> dict[str, Any]:
    """The data of a row for the verifier, cleaned like all texts."""
    check: Any = {} if fields.check is None else find(row, fields.check, None) or {}
    if isinstance(check, str):
        try:
            check = json.loads(check)
        except (ValueError, RecursionError):
            check = None
    if not isinstance(check, dict):
        raise Unusable(Reason.WRONG_TYPE, f"the field {fields.check!r} holds no object (data.fields.check)")
    if domain == "code":
        check = code_check(row, fields.tests) | check
    # Neither lone surrogates nor values that JSON lacks may reach a table.
    return json.loads(clean(json.dumps(check, ensure_ascii=False, default=str)))


def code_check(row: dict[str, Any], tests: str | None) -> dict[str, Any]:
    """What the verifier of code needs: the tests in the field `tests`, or under the names of public data sets."""
    check = {name: row[name] for name in SIDE_FIELDS if row.get(name)}
    if (function := find(row, "metadata.func_name", None)) and isinstance(function, str):  # LiveCodeBench
        check["func_name"] = function
    prompt, entry_point = row.get("prompt"), row.get("entry_point")
    if isinstance(prompt, str) and entry_point and f"def {entry_point}" in prompt:  # HumanEval: a response may go on
        check["prompt"] = prompt
    if tests is None:
        return check | {name: row[name] for name in TEST_FIELDS if row.get(name) and not _is_pickled(row[name])}
    value = get(row, tests, "data.fields.tests")
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        value = "\n".join(value)
    if not isinstance(value, str | list | dict):
        raise Unusable(Reason.WRONG_TYPE, f"the field {tests!r} holds {kind_of(value)}, not tests")
    return check | {"tests": value}


def _is_pickled(value: Any) -> bool:
    """Whether tests are LiveCodeBench's private ones: a compressed pickle, which could run code and is left out."""
    return isinstance(value, str) and value.startswith("eJ")


def content_id(problem: str) -> str:
    """A hash (32 hex digits) of the problem's text, independent of Unicode normalization and white space."""
    text = " ".join(unicodedata.normalize("NFC", problem).split())
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
