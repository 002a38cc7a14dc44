"""Numbers as people write them within a text: digits in groups, decimals, fractions, percent, scales, words."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

from offsft.verify.quantity import Number, read

_NUMERALS = (
    # Scientific; then thousands in groups, decimals; then fractions and mixed numbers; a decimal comma; one sign.
    re.compile(
        r"(?<![\d.])\d+(?:\.\d+)?\s*(?:[eE]|(?:\\times|\\cdot|×|·|\*)\s*10\s*(?:\^|\*\*)\s*)\{?\s*[-+−]?\d{1,3}\s*\}?"
    ),
    re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,|\{,\}|\\,|\\ |[\u00a0\u2009\u202f ])\d{3})+(?:\.\d+)?(?!\d)"),
    re.compile(r"(?<!\d)(?<!\d[.,])(?:\d+(?:\.\d+)?|\.\d+)(?!\d)(?!,\d{3}(?!\d))"),
    re.compile(r"(?<![\d.,])\d+,\d{1,2}(?!\d)"),
    re.compile(r"(?:(?<![\d.])\d+\s*)?\\[dtc]?frac\s*(?:\{\s*[\d,.]+\s*\}\s*\{\s*[\d,.]+\s*\}|\d\s*\d)"),
    re.compile(r"(?<![\d./])(?:\d+\s+)?\d+\s*[/⁄∕]\s*\d+(?![\d/])"),
    re.compile(r"(?:(?<!\d)\d+\s*)?[¼½¾⅐-⅞]"),
)
FRACTION = re.compile(r"frac|[/⁄∕¼½¾⅐-⅞]")
SCALE = re.compile(r"[\s~]*(?:\\text\{\s*)?(?:hundred|thousand|million|billion|trillion|dozen)s?\b|(?<=\d)[kKM]\b")
HUNDREDTH = re.compile(r"[\s~]*(?:\\?%|\\text\{\s*(?:percent|cents?)|percent\b|per cent\b|cents?\b|¢|c\b)")
_UNIT_WORDS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
_NUMBER_WORDS = (
    rf"(?:zero|{_UNIT_WORDS}|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|dozen"
    r"|half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?)"
)
IN_WORDS = re.compile(rf"\b(?:an?\s+)?{_NUMBER_WORDS}(?:(?:\s+and\s+|[\s-]+){_NUMBER_WORDS})*\b", re.IGNORECASE)


def numerals(text: str) -> Iterator[re.Match[str]]:
    """Every number in digits, in each form that it can be read in."""
    return chain.from_iterable(form.finditer(text) for form in _NUMERALS)


def value_of(numeral: str) -> Number | None:
    """The number that a numeral stands for."""
    if re.fullmatch(r"\d+,\d{1,2}", numeral):
        return Number(Fraction(numeral.replace(",", ".")), True)
    grouped = re.sub(r"(?<=\d)(?:,|\{,\}|\\,|\\ |[\u00a0\u2009\u202f ])(?=\d{3}(?!\d))", "", numeral)
    return read(grouped)[2]


def are_same(one: Number, other: Number) -> bool:
    """Whether two numbers are equal, or one is the other rounded to the decimals that it is written with."""
    if one.value == other.value or one.value == -other.value:
        return True
    if not (one.is_decimal or other.is_decimal) or not one.value or not other.value:
        return False
    left, right = abs(one.value), abs(other.value)
    return abs(left - right) <= Fraction(1, 200) * min(left, right) and min(left, right) % 1 != 0
