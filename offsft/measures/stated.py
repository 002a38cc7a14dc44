"""Where a response states the value of its final answer: its last mark, and the first place before it."""

import re
from dataclasses import dataclass
from functools import lru_cache

from offsft.verify.answer import final_answer

NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|-?\.\d+")
"""A number in digits, as people write it."""
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_DERIVED = re.compile(r"(?:[=≈]|\\approx)[ \t]*(?:\\[(\[ ]|[$€£*\\{(])*[ \t]*$")
_SHORTEST = 2
"""Fewest characters of a value that is not a number: a letter such as `B` stands in many words."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of a text, from `start` to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stated:
    """The places of an answer's value; None where there is no such place."""

    first: Span | None
    last: Span | None


def stated_answer(response: str, problem: str) -> Stated:
    """The places where a response states its final answer's value.

    A value that the problem mentions as well counts first where it is the result of an equation: before, it may be
    one of the problem's own numbers.
    """
    answer = last_answer(response)
    places = _places(response, answer) if answer else []
    if not places:
        return Stated(None, None)
    last = places[-1]
    if _places(problem, str(answer)):
        places = [place for place in places if _DERIVED.search(response, max(0, place.start - 20), place.start)]
    return Stated(places[0] if places else None, last)


@lru_cache(maxsize=64)
def last_answer(response: str) -> str | None:
    """The final answer that a response states; several measures ask for it, each soon after the other."""
    return final_answer(response)


def _places(text: str, answer: str) -> list[Span]:
    """Where a text has an answer's value: as a number in any spelling, else as the same characters."""
    numbers = NUMBER.findall(answer)
    if numbers and not re.search(r"\\[A-Za-z]|[/^(){}\[\]]", _without_dress(answer)):
        wanted = value_of(numbers[0] if len(numbers) == 1 else numbers[-1])
        return [Span(m.start(), m.end()) for m in _numbers(text) if value_of(m[0]) == wanted]
    bare = answer.strip()
    if len(bare) < _SHORTEST:
        return []
    return [Span(m.start(), m.end()) for m in re.finditer(re.escape(bare), text)]


def _without_dress(answer: str) -> str:
    """The answer without what stands around a number: units in `\\text{}`, dollars, percent."""
    return re.sub(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\[$%,;: ]|\\%", "", answer)


def _numbers(text: str) -> list[re.Match[str]]:
    """The numbers of a text, without digits that are a part of a longer one or of a word."""
    return [m for m in NUMBER.finditer(text) if not re.match(r"[A-Za-z_]\Z", text[m.start() - 1 : m.start()] or " ")]


def value_of(number: str) -> str:
    """A number without separators and trailing zeros, to be compared as text."""
    plain = _THOUSANDS.sub("", number).lstrip("-")
    whole, _, decimals = plain.partition(".")
    decimals = decimals.rstrip("0")
    return f"{whole.lstrip('0') or '0'}{'.' + decimals if decimals else ''}"
