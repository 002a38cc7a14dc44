"""Units and number words: maps every spelling of a unit to one name, and words for a number to that number."""

import re
from fractions import Fraction

Unit = tuple[str, ...]
"""The factors of a unit in order, such as `("mile", "/hour")` or `("centimeter^2",)`; empty for none."""

_SPELLINGS = {
    "meter": "m metre", "centimeter": "cm centimetre", "millimeter": "mm millimetre", "kilometer": "km kilometre", "micrometer": "µm um μm micron",
    "nanometer": "nm", "decimeter": "dm decimetre", "inch": "in inches", "foot": "ft feet", "yard": "yd", "mile": "mi", "lightyear": "ly",
    "gram": "g gramme gm", "kilogram": "kg kilo kilogramme", "milligram": "mg", "microgram": "µg μg", "ton": "tonne", "pound": "lb £ gbp", "ounce": "oz",
    "second": "s sec", "minute": "min", "hour": "h hr", "millisecond": "ms", "microsecond": "µs μs", "nanosecond": "ns", "week": "wk", "month": "mo", "year": "yr",
    "liter": "L l litre", "milliliter": "ml mL millilitre cc", "gallon": "gal", "quart": "qt", "pint": "pt", "tablespoon": "tbsp", "teaspoon": "tsp",
    "dollar": "$ usd buck", "cent": "¢", "euro": "€ eur", "yen": "¥", "rupee": "₹ rs inr",
    "joule": "J", "kilojoule": "kJ kj", "calorie": "cal", "kilocalorie": "kcal", "watt": "W", "kilowatt": "kW kw", "megawatt": "MW", "milliwatt": "mW", "kilowatthour": "kWh kwh",
    "newton": "N", "pascal": "Pa", "kilopascal": "kPa kpa", "atmosphere": "atm", "volt": "V", "ampere": "A amp", "ohm": "Ω", "hertz": "Hz hz", "kilohertz": "kHz",
    "megahertz": "MHz", "gigahertz": "GHz", "kelvin": "K", "celsius": "C centigrade", "fahrenheit": "F", "mole": "mol", "molar": "M", "electronvolt": "eV",
    "coulomb": "", "tesla": "", "farad": "", "henry": "", "bit": "", "byte": "B", "kilobyte": "KB kb", "megabyte": "MB mb", "gigabyte": "GB gb", "terabyte": "TB tb",
    "degree": "deg", "radian": "rad", "acre": "", "hectare": "ha", "person": "people", "child": "children", "man": "men", "woman": "women", "mouse": "mice", "am": "a.m", "pm": "p.m",
}  # fmt: skip
_SYMBOLS = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_WORDS = {spelling.lower(): name for spelling, name in _SYMBOLS.items() if len(spelling) > 1} | {
    name: name for name in _SPELLINGS
}
_COMPOUND = {
    "mph": ("mile", "/hour"), "kph": ("kilometer", "/hour"), "kmh": ("kilometer", "/hour"), "kmph": ("kilometer", "/hour"), "fps": ("foot", "/second"),
    "rpm": ("revolution", "/minute"), "mpg": ("mile", "/gallon"), "psi": ("pound", "/inch^2"), "sqft": ("foot^2",), "sqm": ("meter^2",), "bpm": ("beat", "/minute"),
}  # fmt: skip
_POWER_BEFORE = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
_POWER_BEHIND = {"squared": "2", "cubed": "3"}
_TOKEN = re.compile(r"(?P<word>[A-Za-zµμΩ°$€£¢¥₹']+)\.?(?:\^?\{?(?P<power>-?\d)\}?)?|(?P<per>/)|[\s.*·~,-]+|\\cdot")
_SMALL = {
    "half": Fraction(1, 2), "halve": Fraction(1, 2), "third": Fraction(1, 3), "fourth": Fraction(1, 4), "fifth": Fraction(1, 5), "sixth": Fraction(1, 6),
    "seventh": Fraction(1, 7), "eighth": Fraction(1, 8), "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "hundredth": Fraction(1, 100), "thousandth": Fraction(1, 1000),
    "millionth": Fraction(1, 10**6),
}  # fmt: skip
_LARGE = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15, "lakh": 10**5, "crore": 10**7,
    "mn": 10**6, "mln": 10**6, "bn": 10**9, "tn": 10**12,
}  # fmt: skip
_SHORT_FACTORS = {"k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "b": 10**9, "B": 10**9, "T": 10**12}
"""Only after an amount of money: elsewhere these are units and variables."""
_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = {
    word: 10 * place
    for place, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
_COUNTS = {word: number for number, word in enumerate(_ONES)} | _TENS


def read_unit(text: str) -> Unit | None:
    """The unit given by a text of words, symbols, powers and slashes; None if it is not a unit."""
    found: list[str] = []
    per, power = "", ""
    position, text = 0, text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        word = match["word"]
        if match["per"] or word == "per" or (word in ("a", "an", "each") and found):
            per = "/"
        elif word in _POWER_BEFORE and not match["power"]:
            power = _POWER_BEFORE[str(word)]
        elif word in _POWER_BEHIND and found:
            found[-1] += f"^{_POWER_BEHIND[str(word)]}"
        elif word:
            factors = _COMPOUND.get(word.lower()) or (name_of(word),)
            raised = match["power"] or power
            if raised and raised.startswith("-"):
                per, raised = "/", raised[1:]
            found += [f"{per}{factors[0]}{'^' + raised if raised and raised != '1' else ''}", *factors[1:]]
            per = power = ""
    if found[-1:] in (["celsius"], ["fahrenheit"]) and found[:-1] == ["degree"]:
        found = found[1:]
    return tuple(found) or None


def name_of(word: str) -> str:
    """The name of a unit in any spelling; any other word in lower case and the singular."""
    if word in _SYMBOLS:
        return _SYMBOLS[word]
    lower = word.lower().rstrip(".").removesuffix("'s")
    for form in (lower, lower.removesuffix("s"), lower.removesuffix("es")):
        if form in _WORDS:
            return _WORDS[form]
    if lower.endswith("ies") and len(lower) > 4:
        return lower[:-3] + "y"
    if re.search(r"(?:x|ch|sh|ss)es$", lower):
        return lower[:-2]
    return lower[:-1] if lower.endswith("s") and not lower.endswith("ss") and len(lower) > 2 else lower


def is_known(word: str) -> bool:
    """Whether a word or symbol is a unit in the table, in any spelling."""
    return word in _SYMBOLS or word in _POWER_BEFORE or name_of(word) in _SPELLINGS or word.lower() in _COMPOUND


def factor_of(words: list[str], *, money: bool) -> tuple[Fraction, list[str]]:
    """The factor given by the number words before a unit, and the remaining words."""
    factor = Fraction(1)
    while words:
        word = words[0].lower().rstrip(".")
        word = word.removesuffix("s") if word not in _LARGE and word not in _SMALL else word
        if word in _LARGE:
            factor *= _LARGE[word]
        elif word in _SMALL and factor == 1:
            factor *= _SMALL[word]
        elif money and words[0] in _SHORT_FACTORS and factor == 1:
            factor *= _SHORT_FACTORS[words[0]]
        else:
            break
        words = words[1:]
    if factor != 1 and words[:1] in (["of"], ["Of"]):
        words = words[2:] if words[1:2] in (["a"], ["an"], ["the"]) else words[1:]
    return factor, words


def number_in_words(text: str) -> Fraction | None:
    """The number that a text spells out (`twenty-five`, `two hundred and six`, `one half`); None for other text."""
    words = re.split(r"[\s-]+", text.strip().lower())
    if not 0 < len(words) <= 12 or not all(word.isalpha() for word in words):
        return None
    if words[0] == "minus" or words[0] == "negative":
        value = number_in_words(" ".join(words[1:]))
        return None if value is None else -value
    if len(words) == 2 and words[0] in _COUNTS and words[1].removesuffix("s") in _SMALL:
        return _COUNTS[words[0]] * _SMALL[words[1].removesuffix("s")]
    if words in (["half"], ["a", "half"]):
        return Fraction(1, 2)
    if words[0] == "half" and words[1:2] in (["a"], ["of"]):
        whole = number_in_words(" ".join(words[1:]))
        return None if whole is None else whole / 2
    if words[0] in ("a", "an") and words[1:2] and words[1] in _LARGE:
        words[0] = "one"
    total = current = 0
    counted = False
    for word in words:
        if word in _COUNTS:
            current, counted = current + _COUNTS[word], True
        elif word == "hundred" and counted:
            current *= 100
        elif word in _LARGE and len(word) > 4 and counted:
            total, current = total + current * _LARGE[word], 0
        elif word != "and" or not counted:
            return None
    return Fraction(total + current)
