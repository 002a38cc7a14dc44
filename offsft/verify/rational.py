"""Exact arithmetic: the value of a purely numeric term, as a fraction.

Floating point would make 1/2^98 and 1/2^99 one number. Terms with a name, a root or an ambiguity (`1/2(3)`) are left to
symbolic mathematics, as are values too large to write down.
"""

import re
from fractions import Fraction
from math import comb, factorial
from typing import NamedTuple

_MOST_BITS = 50_000
_MOST_FACTORIAL = 2_000
_MOST_TOKENS = 200
_DEEPEST = 40
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+|\.(?=\\(?:overline|bar|dot)))(?P<repeat>\\(?:overline|bar|dot)\s*\{?\s*\d+\s*\}?(?:\d*\\dot\s*\{?\d\}?)?"
    r"|(?<=\.)\(\d+\)|(?<=\.\d)\(\d+\)|\s*\\ldots)?|(?P<command>\\[A-Za-z]+)|(?P<sign>[-+*/^!(){}\[\]]))",
    re.ASCII,
)


class Exact(NamedTuple):
    """An exact value, and whether a part of it was written as a decimal, which may be a rounded number."""

    value: Fraction
    is_decimal: bool


class _Unreadable(Exception):
    pass


def exact_value(text: str) -> Exact | None:
    """The value of a term of numbers, signs, fractions, powers, factorials and binomials; None for anything else."""
    if len(text) > 300 or not any(character.isdigit() for character in text):
        return None
    try:
        reader = _Reader(_tokens(text))
        value = reader.sum(0)
        reader.end()
    except (_Unreadable, ZeroDivisionError):
        return None
    return Exact(value, reader.is_decimal)


def repeating_decimal(whole: str, first: str, period: str) -> Fraction:
    """The value of `whole.first` followed by `period` repeated forever."""
    start = Fraction(int(whole + first or "0"), 10 ** len(first))
    return start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(first))


def _tokens(text: str) -> list[tuple[str, object]]:
    """Tokenize into numbers (`number`, its value and whether it was a decimal), commands and signs."""
    found: list[tuple[str, object]] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None or len(found) > _MOST_TOKENS:
            raise _Unreadable
        if match["number"]:
            found.append(("number", _number(match["number"].replace(",", ""), match["repeat"])))
        else:
            found.append(("sign", match["command"] or match["sign"]))
        position = match.end()
    return found


def _number(digits: str, repeat: str | None) -> Exact:
    if repeat is None:
        return Exact(Fraction(digits.rstrip(".") or "0"), "." in digits)
    whole, point, first = digits.partition(".")
    if not point:
        raise _Unreadable
    if "ldots" in repeat:
        period = _period(first)
        return Exact(repeating_decimal(whole, first[: len(first) - len(period)], period), False)
    # `0.\dot{1}4285\dot{7}`: the dots mark the first and the last digit of the period.
    return Exact(repeating_decimal(whole, first, re.sub(r"\D", "", repeat)), False)


def _period(digits: str) -> str:
    """The shortest suffix of `digits` that is repeated at least twice (one digit: three times)."""
    for length in range(1, len(digits) // 2 + 1):
        times = 3 if length == 1 else 2
        if digits.endswith(digits[-length:] * times):
            return digits[-length:]
    raise _Unreadable


class _Reader:
    """Recursive descent parser of a sum of products of powers; each method is given its depth."""

    def __init__(self, tokens: list[tuple[str, object]]) -> None:
        self._tokens = tokens
        self._at = 0
        self.is_decimal = False

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise _Unreadable

    def _next(self) -> object:
        kind, what = self._tokens[self._at] if self._at < len(self._tokens) else ("end", None)
        return what if kind == "sign" else kind

    def _take(self, *signs: str) -> str | None:
        found = self._next()
        if found in signs:
            self._at += 1
            return str(found)
        return None

    def sum(self, depth: int) -> Fraction:
        if depth > _DEEPEST:
            raise _Unreadable
        sign = self._take("+", "-")
        value = self._product(depth) * (-1 if sign == "-" else 1)
        while sign := self._take("+", "-"):
            value = _small(value + self._product(depth) * (-1 if sign == "-" else 1))
        return value

    def _product(self, depth: int) -> Fraction:
        value, divided = self._power(depth), False
        while True:
            if self._take("*", "\\cdot", "\\times"):
                value = _small(value * self._signed_power(depth))
            elif self._take("/", "\\div"):
                value, divided = value / self._signed_power(depth), True
            elif self._next() in ("(", "\\frac", "\\binom") and not divided:
                behind_number, sign = self._tokens[self._at - 1][0] == "number", self._next()
                mixed = behind_number and sign == "\\frac"
                other = self._power(depth)
                if behind_number and sign == "(" and 0 < other < 1:
                    raise _Unreadable  # `137 (1/2)` may be a mixed number
                value = value + other if mixed and 0 < other < 1 and value.denominator == 1 else _small(value * other)
            else:
                return value

    def _signed_power(self, depth: int) -> Fraction:
        sign = self._take("+", "-")
        return self._power(depth) * (-1 if sign == "-" else 1)

    def _power(self, depth: int) -> Fraction:
        value = self._atom(depth)
        while self._take("!"):
            if value.denominator != 1 or not 0 <= value <= _MOST_FACTORIAL:
                raise _Unreadable
            value = Fraction(factorial(int(value)))
        if not self._take("^"):
            return value
        exponent = self._argument(depth)
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if exponent.denominator != 1 or bits * abs(exponent) > _MOST_BITS or (value == 0 and exponent <= 0):
            raise _Unreadable
        return value ** int(exponent)

    def _atom(self, depth: int) -> Fraction:
        if self._next() == "number":
            _, exact = self._tokens[self._at]
            self._at += 1
            assert isinstance(exact, Exact)
            self.is_decimal |= exact.is_decimal
            return exact.value
        if self._take("\\frac"):
            above = self._argument(depth, digit=True)
            return above / self._argument(depth, digit=True)
        if self._take("\\binom"):
            above, below = self._argument(depth), self._argument(depth)
            if above.denominator != 1 or below.denominator != 1 or not 0 <= below <= above <= _MOST_FACTORIAL:
                raise _Unreadable
            return Fraction(comb(int(above), int(below)))
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]")):
            if self._take(opening):
                value = self.sum(depth + 1)
                if self._take(closing):
                    return value
        raise _Unreadable

    def _argument(self, depth: int, *, digit: bool = False) -> Fraction:
        """Read a term in braces, or a number; in `\\frac12` each argument is a single `digit`."""
        if digit and self._next() == "number":
            _, exact = self._tokens[self._at]
            assert isinstance(exact, Exact)
            text = str(exact.value)
            if exact.is_decimal or not text.isdigit() or len(text) > 2:
                raise _Unreadable
            if len(text) == 2:
                self._tokens[self._at] = ("number", Exact(Fraction(text[1]), False))
            else:
                self._at += 1
            return Fraction(text[0])
        sign = self._take("-") if not digit else None
        return self._atom(depth) * (-1 if sign else 1)


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise _Unreadable
    return value
