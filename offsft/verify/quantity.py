"""Numbers with their currency signs, units and number words, read exactly.

Most answers to word problems are of this kind, and symbolic mathematics gets them wrong. It mistakes a variable for a
unit (`2x` for 2), drops units unchecked (`3 hours` for `3 minutes`), and reads a mixed number as a product.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from offsft.verify.notation import plain
from offsft.verify.rational import exact_value
from offsft.verify.units import Unit, factor_of, is_known, number_in_words, read_unit

_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee", "¢": "cent"}
_SIGN = "[$€£¥₹]"
_NOT_UNITS = {
    "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "choose", "factorial", "mod", "over", "percent", "pct",
    "plus", "minus", "times", "than", "and", "or", "to", "not", "base", "more", "less", "remainder",
}  # fmt: skip
_POWER = r"(?:\^\{?-?\d\}?|[²³])?"
_UNIT_AS_TEXT = re.compile(
    rf"(?P<unit>\\text\s*\{{[^{{}}\d]*[A-Za-z°$€£%μΩ](?:\^?\{{?[23])?[^{{}}\d]*\}}{_POWER}(?:\s*(?:\\cdot|\\,|[/*~.])?\s*(?:\\text\s*\{{[^{{}}]*\}}{_POWER}|per\b|(?<=/)\s*[a-z]+{_POWER}))*)\s*$"
)
_UNIT_AS_FRACTION = re.compile(
    r"\\frac\s*\{\s*\\text\s*\{(?P<above>[^{}]*)\}\s*\}\s*\{\s*\\text\s*\{(?P<below>[^{}]*)\}\s*\}\s*$"
)
_WORD = r"[A-Za-zµμΩ]+\.?(?:\^\{?-?\d\}?|[23](?![\d.]))?"
_UNIT_AS_WORDS = re.compile(rf"(?P<space>[\s}})])?(?<![A-Za-z\\_])(?P<words>{_WORD}(?:[ /*-]+{_WORD}){{0,7}})$")
_REMARK = re.compile(r"(?<=[\d}.%])\s*\((?P<words>(?=[^()]*[A-Za-z]{3}|[°$€£%])[^()=<>\\^_+*]*)\)$")
_GLOSS = re.compile(r"(?P<number>[-+]?\d[\d.,]*) \((?P<words>[A-Za-z][A-Za-z ]*)\)")
"""A number and what it counts, as ASDiv writes its answers: `107 (ft)`."""
_COUNTED = re.compile(r"times|(?:third|fourth|fifth|sixth|seventh|eighth) [a-z]+s")
"""Glosses that are words of a number elsewhere: `5 times 3`, `a third`."""
_DEGREES = re.compile(r"\^\\circ\s*$")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<currency>{_SIGN}?)\s*(?P<inner_sign>[-+]?)"
    rf"(?:(?P<mixed>\d{{1,9}})\s+(?=\d+/))?"
    rf"(?P<number>(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?: \d{{3}})+|\d+)(?:\.\d*)?|\.\d+)(?:/(?P<below>\d+))?\s*(?P<suffix>(?:{_SIGN}|¢)?)",
    re.ASCII,
)
_SCIENTIFIC = re.compile(
    r"(?P<number>[-+]?\s*(?:\d+\.?\d*|\.\d+))\s*(?:[eE]|(?:\\times|\\cdot|×|\*|x)\s*10\s*(?:\^|\*\*)\s*)\{?\s*(?P<power>[-+]?\s*\d{1,3})\s*\}?",
    re.ASCII,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)(\d))", re.ASCII)
_BASE_WORDS = {
    "two": 2, "binary": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "octal": 8, "nine": 9, "ten": 10, "decimal": 10, "eleven": 11,
    "twelve": 12, "sixteen": 16, "hex": 16, "hexadecimal": 16,
}  # fmt: skip
_BASED = re.compile(
    r"(?P<opening>\(|\\text\s*\{)?\s*(?P<digits>\d[\dA-Fa-f]*|[A-F]{2,}|[A-Fa-f]+\d[\dA-Fa-f]*)\s*(?(opening)[)}])\s*"
    r"(?:_\s*\{?\s*(?:\(|\\text\s*\{)?\s*(?:base\s*\}?\s*)?(?P<base>\d{1,2}|[a-z]+)\s*[})]*"
    r"|,?\s*(?:\(|\\text\s*\{\s*\(?)?\s*(?:in\s+)?base[\s-]*\}?\s*(?P<named>\d{1,2}|[a-z]+)\s*[)}]*)",
    re.ASCII,
)
_PREFIXED = re.compile(r"0(?P<kind>[bxo])(?P<digits>[\dA-Fa-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value, and whether it was written as a decimal, which may be a rounded number."""

    value: Fraction
    is_decimal: bool


def read(text: str, *, single_letters: bool = False) -> tuple[str, Unit, Number | None]:
    """Split an answer into the text without its unit, the unit as factor names, and the text's number, if it is one.

    A currency sign counts as a unit, number words as factors of the number. `2x`, `2 pi`, `50%` and `7 or 8` have no
    unit and are not plain numbers. With `single_letters` the `m` of `5 m`, otherwise possibly a variable, is a unit.
    """
    bare, words = _without_unit(_typeset(plain(text)), single_letters=single_letters)
    money = re.search(_SIGN, bare) is not None
    factor, words = factor_of(words, money=money)
    unit = _unit_of(words)
    bare, currency, number = _number(bare)
    if currency and unit[:1] != (currency,):
        unit = (currency, *unit)
    if factor != 1:
        if number is None:
            return f"{factor} \\cdot ({bare})", unit, None
        number = Number(number.value * factor, number.is_decimal)
        return str(number.value), unit, number
    return bare, unit, number


def _unit_of(words: list[str]) -> Unit:
    """The unit given by the words after a number, if any: `in profit` names the quantity, not its unit."""
    if words and words[0].lower() == "in" and words[1:2] not in ([], ["/"], ["per"]):
        return ()
    if words and words[0].lower() == "of":
        words = words[2:] if words[1:2] in (["a"], ["an"], ["the"]) else words[1:]
    return (read_unit(" ".join(words)) or ()) if words else ()


def compatible(left: Unit, right: Unit) -> bool:
    """Whether two units do not contradict each other: one is missing, or begins with the other."""
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


def read_base(text: str) -> tuple[str, int] | None:
    """The digits and base of a number with a base; None for other text.

    Examples: `1011_2`, `(1011)_{two}`, `1011 base 2`, `0b1011`.
    """
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text.strip().strip("$ ").replace("\\,", ""))
    prefixed = _PREFIXED.fullmatch(text)
    if prefixed is not None:
        return prefixed["digits"].upper().lstrip("0") or "0", {"b": 2, "o": 8, "x": 16}[prefixed["kind"]]
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    named = match["base"] or match["named"]
    base = int(named) if named.isdigit() else _BASE_WORDS.get(named, 0)
    digits = match["digits"].upper()
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in digits):
        return None
    return digits.lstrip("0") or "0", base


def _number(bare: str) -> tuple[str, str | None, Number | None]:
    """The text without its currency, the currency's name, and the text's number."""
    power = _SCIENTIFIC.fullmatch(bare)
    if power is not None:
        value = Fraction(power["number"].replace(" ", "").rstrip(".")) * Fraction(10) ** int(
            power["power"].replace(" ", "")
        )
        return bare, None, Number(value, "." in power["number"])
    match = _NUMBER.fullmatch(_FRACTION.sub(_fraction_with_slash, bare).replace(" /", "/").replace("/ ", "/").strip())
    if match is None or (match["sign"] and match["inner_sign"]) or (match["currency"] and match["suffix"]):
        exact = exact_value(bare) or (
            number_in_words(re.sub(r"\\text\{([^{}]*)\}", r"\1", bare))
            if bare[:1].isalpha() or bare[:5] == "\\text"
            else None
        )
        if exact is None:
            return bare, None, None
        return (
            bare,
            None,
            Number(exact, False) if isinstance(exact, Fraction) else Number(exact.value, exact.is_decimal),
        )
    below = Fraction(match["below"] or 1)
    if below == 0 or (match["mixed"] and "." in match["number"]):
        return bare, None, None
    value = Fraction(re.sub("[, ]", "", match["number"]).rstrip(".")) / below + int(match["mixed"] or 0)
    if "-" in match["sign"] + match["inner_sign"]:
        value = -value
    sign = match["currency"] or match["suffix"]
    number = Number(value, "." in match["number"])
    return str(value) if match["mixed"] else bare.replace(sign or "$", ""), _CURRENCIES.get(sign), number


def _typeset(text: str) -> str:
    """Remove typesetting that does not change the value."""
    text = re.sub(r"\\!\s*", "", text.strip().rstrip(".")).replace("\\$", "$").replace("{,}", ",")
    text = re.sub(r"(?i:\b([ap])\.\s?m\b\.?)", r"\1m", text)
    text = re.sub(r"^\\text\s*\{\s*(\d[^{}]*)\}$", r"\1", text)
    text = re.sub(r"\\text\s*\{\s*([-+$€£\d.,/ ]*\d[\d.,/ ]*)\}", r"\1", text)
    text = re.sub(
        r"(?<=\d)\s*\\(?:Omega\s*|mu\s*([msgLA]))$",
        lambda match: f"\\text{{ {'μ' + match[1] if match[1] else 'Ω'}}}",
        text,
    )
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1]
    return re.sub(r"(?<=\d)\\,(?=\d{3})", ",", text).strip()


def _fraction_with_slash(match: re.Match[str]) -> str:
    return f" {match[1] or match[3]}/{match[2] or match[4]}"


def _without_unit(text: str, *, single_letters: bool) -> tuple[str, list[str]]:
    """The text without its trailing words that are a unit or stand for a number, and these words."""
    gloss = _GLOSS.fullmatch(text)
    if gloss is not None and _COUNTED.fullmatch(gloss["words"]):
        return gloss["number"], []
    if gloss is not None and all(map(is_known, gloss["words"].split())):
        return gloss["number"], gloss["words"].split()
    text = _REMARK.sub(lambda match: f" \\text{{{_letters(match['words'])}}}", text)
    degrees = _DEGREES.search(text)
    if degrees is not None and not _TRIGONOMETRIC.search(text):
        return text[: degrees.start()].rstrip(" {}"), ["degree"]
    ratio = _UNIT_AS_FRACTION.search(text)
    if ratio is not None and ratio.start():
        return text[: ratio.start()].rstrip(" \\,~"), _split_words(f"{ratio['above']}/{ratio['below']}")
    match = _UNIT_AS_TEXT.search(text)
    as_words = match is None
    match = match or _UNIT_AS_WORDS.search(text)
    if match is None:
        return text, []
    words = _split_words(match["words"] if as_words else re.sub(r"\\text\s*\{([^{}]*)\}", r" \1", match["unit"]))
    bare = text[: match.start("words") if as_words else match.start()].rstrip(" \\,~-" if not as_words else " \\,~")
    # Only after something that has a value; a word alone is the answer itself.
    if not re.search(r"[\d}]", bare) or not words or not _NOT_UNITS.isdisjoint(word.lower() for word in words):
        return text, []
    if as_words and not _stands_apart(words, match["space"] is not None, bare, single_letters=single_letters):
        return text, []
    return bare, words


def _stands_apart(words: list[str], space: bool, bare: str, *, single_letters: bool) -> bool:
    """Whether letters after a number are a unit, not variables: a known abbreviation, or a separate word."""
    first = re.sub(r"[\d^{}.-]+$", "", words[0])
    if len(first) == 1:
        money = re.search(_SIGN, bare) is not None and first in "kKmMbBT"
        # `5 m/s` and `3 L per day` cannot be mere variables.
        spelled = space and is_known(first) and any(len(word) > 1 or word == "/" for word in words[1:])
        return money or spelled or (single_letters and space and is_known(first))
    return is_known(first) or (space and len(first) >= 3)


def _split_words(text: str) -> list[str]:
    return [word for word in re.split(r"(?<!\^\{)-|[\s~*,]+|\\cdot|\\,|(/)", text) if word]


def _letters(text: str) -> str:
    """The words of a remark after a number; digits there (`10-dollar bills`) are not powers."""
    return re.sub(r"\d+", "", text)
