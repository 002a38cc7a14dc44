"""Plain numbers with their currency signs and units, read exactly.

Most answers of word problems are of this kind, and here symbolic mathematics goes wrong: it takes a variable for a
unit (`2x` for 2), drops units without a look (`3 hours` for `3 minutes`), reads a mixed number as a product.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound"}
_SHORT_UNITS = {
    "usd": "dollar", "eur": "euro", "gbp": "pound", "lb": "pound", "oz": "ounce", "hr": "hour", "min": "minute",
    "sec": "second", "ft": "foot", "feet": "foot", "inche": "inch", "in": "inch", "yd": "yard", "mi": "mile",
    "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "kg": "kilogram", "mg": "milligram",
    "ml": "milliliter", "mph": "mph", "kwh": "kwh", "gb": "gb", "mb": "mb", "sq": "square",
    "am": "am", "pm": "pm",
}  # fmt: skip
_NOT_UNITS = {
    "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "choose", "factorial", "mod", "over", "percent", "pct",
    "plus", "minus", "times", "than", "and", "or", "to", "not",
}  # fmt: skip
_POWER = r"(?:\^\{?\d\}?|[²³])?"
_UNIT_AS_TEXT = re.compile(rf"\\(?:text|mathrm|textrm|mbox)\s*\{{(?P<words>[^{{}}]*)\}}(?P<power>{_POWER})$")
_UNIT_AS_WORDS = re.compile(
    rf"(?P<space>[\s}})])?(?<![A-Za-z\\])(?P<words>[A-Za-z]+\.?(?:[ /-]+[A-Za-z]+\.?){{0,5}})(?P<power>{_POWER})$"
)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?P<currency>[$€£]?)\s*(?P<inner_sign>[-+]?)"
    r"(?:(?P<mixed>\d{1,9})\s+(?=\d+/))?"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:/(?P<below>\d+))?\s*(?P<suffix>[$€£]?)",
    re.ASCII,
)
_SCIENTIFIC = re.compile(
    r"(?P<number>[-+]?\s*(?:\d+\.?\d*|\.\d+))\s*(?:[eE]|(?:\\times|\\cdot|×|\*|x)\s*10\s*(?:\^|\*\*)\s*)\{?\s*(?P<power>[-+]?\s*\d{1,3})\s*\}?",
    re.ASCII,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)(\d))", re.ASCII)

Unit = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value, and whether it was written as a fraction (so that a decimal may stand for it, rounded)."""

    value: Fraction
    is_fraction: bool


def read(text: str) -> tuple[str, Unit, Number | None]:
    """An answer without its unit, the unit as normalised words, and the number that the rest is, if it is one.

    A currency sign counts as a unit. `2x`, `2 pi`, `50%` and `7 or 8` have no unit and are no plain numbers.
    """
    bare, unit = _without_unit(_plain(text))
    power = _SCIENTIFIC.fullmatch(bare)
    if power is not None:
        value = Fraction(power["number"].replace(" ", "").rstrip(".")) * Fraction(10) ** int(
            power["power"].replace(" ", "")
        )
        return bare, unit, Number(value, False)
    match = _NUMBER.fullmatch(_FRACTION.sub(_fraction_with_slash, bare).replace(" /", "/").replace("/ ", "/").strip())
    if match is None or (match["sign"] and match["inner_sign"]) or (match["currency"] and match["suffix"]):
        return bare, unit, None
    below = Fraction(match["below"] or 1)
    if below == 0 or (match["mixed"] and "." in match["number"]):
        return bare, unit, None
    value = Fraction(match["number"].replace(",", "").rstrip(".")) / below + int(match["mixed"] or 0)
    if "-" in match["sign"] + match["inner_sign"]:
        value = -value
    currency = _CURRENCIES.get(match["currency"] or match["suffix"])
    if currency and unit[:1] != (currency,):
        unit = (currency, *unit)
    number = Number(value, match["below"] is not None)
    return str(value) if match["mixed"] else bare.replace(match["currency"] or match["suffix"] or "$", ""), unit, number


def compatible(left: Unit, right: Unit) -> bool:
    """Whether two units do not speak against each other: one is missing, or begins with the other."""
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


def _plain(text: str) -> str:
    """Without the signs of typesetting that change no value."""
    text = re.sub(r"\\!\s*", "", text.strip().rstrip(".")).replace("\\$", "$").replace("{,}", ",").replace("−", "-")
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1]
    return re.sub(r"(?<=\d)\\,(?=\d{3})", ",", text).strip()


def _fraction_with_slash(match: re.Match[str]) -> str:
    return f" {match[1] or match[3]}/{match[2] or match[4]}"


def _without_unit(text: str) -> tuple[str, Unit]:
    match = _UNIT_AS_TEXT.search(text)
    as_words = match is None
    match = match or _UNIT_AS_WORDS.search(text)
    if match is None:
        return text, ()
    bare = text[: match.start("words") if as_words else match.start()].rstrip(" \\,~")
    words = [word for word in re.split(r"[\s./-]+", match["words"].lower()) if word]
    # Only behind something that has a value; a word alone is the answer itself.
    if not re.search(r"[\d}]", bare) or not words or not _NOT_UNITS.isdisjoint(words):
        return text, ()
    unit = tuple(_normalised(word) for word in words)
    if as_words:
        # Letters at a number may be variables: a unit is a known abbreviation, or a word that stands apart.
        is_known = unit[0] in _SHORT_UNITS.values()
        if not is_known and (match["space"] is None or len(words[0]) < 3):
            return text, ()
    power = match["power"].strip("^{}").translate({ord("²"): "2", ord("³"): "3"})
    return bare, (*unit[:-1], unit[-1] + power)


def _normalised(word: str) -> str:
    singular = word[:-1] if word.endswith("s") and len(word) > 2 else word
    return _SHORT_UNITS.get(singular, singular)
