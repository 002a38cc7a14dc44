"""Input/output cases: calls with arguments, and programs that read and print."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from offsft.verify.sandbox.remote import Link, Remote


def run_cases(
    cases: list[dict[str, Any]], names: dict[str, Any], code: str, link: Link, count: Callable[[], None]
) -> str | None:
    """Run the cases and return the reason of the first failure, or None if all pass.

    A case is `{"kind": "call", "name", "arguments", "expected"}` or `{"kind": "program", "stdin", "expected"}`.
    """
    for number, case in enumerate(cases, start=1):
        count()
        try:
            wrong = _call(case, names) if case["kind"] == "call" else _program(case, code, link)
        except Exception as error:  # any exception of the solution: the case has failed
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            return f"case {number} of {len(cases)}: {wrong}"
    return None


def _call(case: dict[str, Any], names: dict[str, Any]) -> str:
    """Source of a call of a function, or of a method of the class `Solution`."""
    name = case["name"]
    if name not in names and "Solution" not in names:
        return f"the solution defines no {name}"
    function = names[name] if name in names else getattr(names["Solution"](), name)
    found = _plain(function(*case["arguments"]))
    return (
        ""
        if found == _plain(case["expected"])
        else f"{name}(...) is {str(found)[:80]!r}, not {str(case['expected'])[:80]!r}"
    )


def _plain(value: Any) -> Any:
    """The value in JSON's types: tuples become lists, and keys become strings."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if not isinstance(value, Remote):
        return value
    try:
        return [_plain(item) for item in value]  # a generator, or a class that extends a list
    except (AttributeError, TypeError):
        return value


def _program(case: dict[str, Any], code: str, link: Link) -> str:
    printed = link.output(code, case["stdin"])
    found, expected = _lines(printed), _lines(case["expected"])
    if found == expected:
        return ""
    if len(found) == len(expected) and all(map(_same_numbers, found, expected)):
        return ""
    return f"prints {printed.strip()[:80]!r}, not {case['expected'].strip()[:80]!r}"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _same_numbers(found: str, expected: str) -> bool:
    if found.split() == expected.split():
        return True
    try:
        return [Decimal(word) for word in found.split()] == [Decimal(word) for word in expected.split()]
    except InvalidOperation:
        return False
