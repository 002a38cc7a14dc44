"""Parse the rows of benchmarks, by the same code as problem files."""

import re
from collections.abc import Iterator
from typing import Any

from offsft.config import Fields, Suite
from offsft.data.choices import Column, column_of, letter_of, read_choices
from offsft.data.formats import code_check
from offsft.data.references import refuse_no_answer
from offsft.data.rows import RawRow, Reason, Rejected, Unusable, clean, decode, reject
from offsft.data.values import find, get, number_text, text
from offsft.records import Problem
from offsft.verify.boxed import boxed_answer
from offsft.verify.code_tests import why_untestable
from offsft.verify.ifeval import read_instructions

_E_NOTATION = re.compile(r"^([-+]?\d+(?:\.\d*)?)[eE]\+?(-?\d+)$")
"""E notation as in Minerva's answers; read as mathematics, `4.5e33` would be a product with Euler's number."""


def parse_suite(row: RawRow, suite: Suite, column: Column | None = None) -> Problem | Rejected:
    """Parse one raw row of a benchmark; the problem's id is the suite's name and the row's line; it has no solution.

    `column` says what all rows' answers are, where they are choices; None: the row alone decides.
    """
    try:
        tree = decode(row.raw)
        problem = clean(text(tree, suite.problem))
        check = _check(tree, suite)
        fields = choice_fields(suite)
        if fields is not None:
            choices = read_choices(tree, fields, problem)
            answer = letter_of(get(tree, suite.answer), choices, column, suite.answer_is)
            problem, check = choices.below(problem), check | {"choices": choices.texts}
        elif suite.is_code:
            solution = find(tree, suite.answer, None)
            if why := why_untestable(check, solution if isinstance(solution, str) else ""):
                raise Unusable(Reason.UNTESTABLE, why)
            answer = ""
        elif suite.answer_form == "none":
            answer = ""
        else:
            answer = _E_NOTATION.sub(r"\1 \\times 10^{\2}", clean(_answer(tree, suite)))
            refuse_no_answer(answer, suite.answer)
        return Problem(f"{suite.name}-{row.line}", problem, "", answer, check)
    except Unusable as unusable:
        return reject(row, unusable)


def suite_column(rows: list[RawRow], suite: Suite) -> Column | None:
    """What the answers of a suite's choices are, from all its rows; None if it has no choices."""
    fields = choice_fields(suite)
    return None if fields is None else column_of(_objects(rows), fields)


def _objects(rows: list[RawRow]) -> Iterator[dict[str, Any]]:
    for row in rows:
        try:
            yield decode(row.raw)
        except Unusable:
            continue  # parse_suite says what is wrong with it


def choice_fields(suite: Suite) -> Fields | None:
    """The fields of a suite's choices; None if it has none."""
    named = suite.choices or suite.check.get("choices")
    return None if named is None else Fields(choices=named, answer=suite.answer)


def _check(row: dict[str, Any], suite: Suite) -> dict[str, Any]:
    """The data of a row for the verifier, without fields that have no value."""
    names = {name: field for name, field in suite.check.items() if name != "choices"}
    tests = names.pop("tests", None) if suite.is_code else None
    values = {name: find(row, field, None) for name, field in names.items()}
    check = {name: value for name, value in values.items() if value not in (None, "")}
    for name in check.keys() & {"absolute", "relative"}:
        try:
            check[name] = float(check[name])
        except (TypeError, ValueError):
            raise Unusable(Reason.WRONG_TYPE, f"the field {suite.check[name]!r} holds no number") from None
    if suite.is_instructions:
        try:
            return check | read_instructions(check)
        except ValueError as error:
            raise Unusable(Reason.WRONG_TYPE, str(error)) from None
    return code_check(row, tests) | check if suite.is_code else check


def _answer(row: dict[str, Any], suite: Suite) -> str:
    if suite.answer_form == "boxed":
        answer = boxed_answer(text(row, suite.answer))
        if not answer:
            raise Unusable(Reason.NO_ANSWER, f"the field {suite.answer!r} holds no \\boxed{{}}")
        return answer
    if suite.answer_form == "hashes":
        _, mark, answer = text(row, suite.answer).rpartition("####")
        if not mark:
            raise Unusable(Reason.NO_ANSWER, f"the field {suite.answer!r} holds no ####")
        return answer
    value = get(row, suite.answer)
    if isinstance(value, list) and value:
        texts = [number_text(each) or text({suite.answer: each}, suite.answer) for each in value]
        return ", ".join(texts).replace("$", "")  # typesetting only: the verifier reads an answer as mathematics
    return number_text(value) or text(row, suite.answer)
