"""Reads sets of numbers in all notations: intervals, inequalities, unions, differences, set-builder, and words."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from offsft.verify.rational import exact_value
from offsft.verify.structure import split_outside_brackets

if TYPE_CHECKING:
    from sympy import Set

_RELATION = re.compile(r"\s*(\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|<|>)\s*")
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne"}
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?(?:\([a-z]\))?")
_NAMES = re.compile(r"(?P<name>\\?[A-Za-z](?:_\{?\w+\}?)?)\s*\\in(?![a-z])\s*")
_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[A-Za-z])\s*(?:\\in\s*\\mathbb\{R\})?\s*(?:\||:)\s*(?P<condition>.+)\\\}", re.DOTALL
)
_ALL_REAL = re.compile(
    r"\\mathbb\{R\}|(?:\\text\{\s*)?(?i:all\s+real(?:\s+numbers|s|\s+values)?(?:\s+of\s+[a-z])?|all\s+reals|the\s+real\s+numbers)\s*\}?"
)
_EMPTY = re.compile(
    r"\\emptyset|\\\{\s*\\\}|(?:\\text\{\s*)?(?i:(?:the\s+)?empty\s+set|no\s+(?:real\s+)?(?:solutions?|roots?|such\s+\w+)(?:\s+exists?)?|there\s+(?:is|are)\s+no\s+(?:real\s+)?solutions?)\s*\}?"
)
_WORDS = (
    (re.compile(r"(?i:^(?:at least|no less than|not less than|greater than or equal to|a minimum of)\b)"), "\\\\ge "),
    (re.compile(r"(?i:^(?:at most|no more than|not more than|less than or equal to|up to|a maximum of)\b)"), "\\\\le "),
    (re.compile(r"(?i:^(?:more than|greater than|over|above|larger than)\b)"), "> "),
    (re.compile(r"(?i:^(?:less than|fewer than|under|below|smaller than)\b)"), "< "),
)
_OR = re.compile(r"\s*(?:\\text\{\s*or\s*\}|\bor\b|\\lor(?![a-z])|;)\s*")
_AND = re.compile(r"\s*(?:\\text\{\s*and\s*\}|\band\b|\\land(?![a-z])|,)\s*")
_UNION = re.compile(r"\s*(?:\\cup(?![A-Za-z])|\bU\b)\s*")
_MINUS = re.compile(r"\s*\\setminus\s*")
_INTERVAL = re.compile(r"(?P<opening>[(\[\]])(?P<inner>.+)(?P<closing>[)\]\[])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class NumberSet:
    """A sympy set, its variable (None without one), and whether its notation can mean nothing else."""

    numbers: "Set"
    variable: str | None
    is_certain: bool


def read_set(text: str) -> NumberSet | None:
    """The set of numbers that a text in plain LaTeX describes; None if it is not a set, or its ends are not numbers."""
    text = re.sub(r"\\text\{\s*([A-Za-z ]{4,}?)\s*\}", r"\1", text.strip("$ ").rstrip("."))
    name = _NAMES.match(text)
    variable, text = (name["name"], text[name.end() :]) if name else (None, text)
    builder = _BUILDER.fullmatch(text)
    if builder is not None:
        variable, text = builder["name"], builder["condition"].strip()
    for words, sign in _WORDS:
        text = words.sub(sign, text)
    try:
        found = _read(text)
    except (_Unreadable, RecursionError):
        return None
    if found is None:
        return None
    numbers, said_of, is_certain = found
    return NumberSet(numbers, said_of or variable, is_certain or builder is not None)


def speaks_of_a_range(text: str) -> bool:
    """Whether a text is an inequality, in signs or words, and so never a single number."""
    bare = re.sub(r"\\text\{\s*([^{}]*?)\s*\}", r"\1", text.strip("$ "))
    return re.match(r"\s*(?:<|>|\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z]))", bare) is not None or any(
        words.match(bare) for words, _ in _WORDS
    )


class _Unreadable(Exception):
    pass


def _read(text: str) -> "tuple[Set, str | None, bool] | None":
    from sympy import S

    if _ALL_REAL.fullmatch(text):
        return S.Reals, None, True
    if _EMPTY.fullmatch(text):
        return S.EmptySet, None, True
    if _RELATION.search(text):
        return _conditions(text)
    differences = split_outside_brackets(text, _MINUS)
    if len(differences) > 1:
        read = [_read(part) or _listed(part) for part in differences]
        sets = [part[0] for part in read if part is not None]
        if len(sets) != len(read):
            return None
        return _difference(sets), None, True
    parts = split_outside_brackets(text, _UNION)
    if len(parts) > 1:
        read = [_interval(part) or _listed(part) for part in parts]
        sets = [part[0] for part in read if part is not None]
        return (_union(sets), None, False) if len(sets) == len(read) else None
    return _interval(text)


def _difference(sets: "list[Set]") -> "Set":
    from sympy import Complement

    found = sets[0]
    for other in sets[1:]:
        found = Complement(found, other)
    return found


def _union(sets: "list[Set]") -> "Set":
    from sympy import Union

    return Union(*sets)


def _conditions(text: str) -> "tuple[Set, str | None, bool] | None":
    """Read conditions such as `0 < x \\le 5`, `x < 1 or x > 2`, `x > 0 and x < 5`, `x \\ne 3`."""
    from sympy import Intersection, S, Union

    variables: set[str] = set()
    alternatives = []
    for alternative in split_outside_brackets(text, _OR):
        together: Set = S.Reals
        for condition in split_outside_brackets(alternative, _AND):
            together = Intersection(together, _chain(condition, variables))
        alternatives.append(together)
    if len(variables) > 1:
        raise _Unreadable
    return Union(*alternatives), next(iter(variables), None), True


def _chain(text: str, variables: set[str]) -> "Set":
    """Read one inequality, or two around a variable; without a variable (`> 5`) it begins with its sign."""
    from sympy import FiniteSet, Intersection, Interval, S

    pieces = _RELATION.split(text.strip())
    terms, signs = pieces[::2], pieces[1::2]
    where = [
        place for place, term in enumerate(terms) if not term or (_VARIABLE.fullmatch(term) and "\\infty" not in term)
    ]
    if (
        len(where) != 1
        or not 1 <= len(signs) <= 2
        or (len(signs) == 2 and where[0] != 1)
        or (not terms[where[0]] and where[0])
    ):
        raise _Unreadable
    if terms[where[0]]:
        variables.add(terms[where[0]])
    found: Set = S.Reals
    for place, sign in enumerate(signs):
        end = _end(terms[place] if place < where[0] else terms[place + 1])
        sign = _FLIPPED[sign] if place < where[0] else sign
        if sign == "\\ne":
            found = found - FiniteSet(end)
        elif sign in ("<", "\\le"):
            found = Intersection(found, Interval(-S.Infinity, end, True, sign == "<"))
        else:
            found = Intersection(found, Interval(end, S.Infinity, sign == ">", True))
    return found


def _interval(text: str) -> "tuple[Set, str | None, bool] | None":
    from sympy import Interval

    match = _INTERVAL.fullmatch(text.strip())
    ends = split_outside_brackets(match["inner"], re.compile(r"\s*[,;]\s*")) if match else []
    if match is None or len(ends) != 2:
        return None
    low, high = _end(ends[0]), _end(ends[1])
    if (low >= high) is not False and low >= high:
        return None
    opened, closed = match["opening"] in "(]", match["closing"] in ")["
    certain = match["opening"] == "]" or match["closing"] == "["
    return Interval(low, high, opened, closed), None, certain


def _listed(text: str) -> "tuple[Set, str | None, bool] | None":
    from sympy import FiniteSet

    match = re.fullmatch(r"\\?\{(?P<inner>.+?)\\?\}", text.strip(), re.DOTALL)
    if match is None:
        return None
    return (
        FiniteSet(*(_end(item) for item in split_outside_brackets(match["inner"], re.compile(r"\s*[,;]\s*")))),
        None,
        False,
    )


def _end(text: str) -> Any:
    """The end of an interval: an exact sympy number, or infinity."""
    from sympy import Expr, Rational, S, nsimplify

    from offsft.verify.algebra import read_expressions

    bare = text.strip("$ ")
    infinite = re.fullmatch(r"(?P<sign>[-+]?)\s*\\infty", bare)
    if infinite is not None:
        return -S.Infinity if infinite["sign"] == "-" else S.Infinity
    exact = exact_value(bare)
    if exact is not None:
        value: Fraction = exact.value
        return Rational(value.numerator, value.denominator)
    if not bare or len(bare) > 100:
        raise _Unreadable
    for read in read_expressions(bare):
        if isinstance(read, Expr) and not read.free_symbols and read.is_real:
            return nsimplify(read, rational=False) if read.is_Float else read
    raise _Unreadable
