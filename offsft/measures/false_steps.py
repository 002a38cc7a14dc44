"""False steps: equations between numbers in a response that do not hold.

Arithmetic is exact. What people write and mean otherwise is not judged rather than called false: rounding, a running chain
(`3 + 4 = 7 * 2 = 14`), mixed units (`1 hour - 20 minutes = 40 minutes`), results in another unit.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

from offsft.measures.equations import Equation, Side, equations
from offsft.verify.rational import exact_value
from offsft.verify.units import name_of

_DECIMAL = re.compile(r"\d[\d,]*\.\d+|\.\d+")
_MOST_DECIMALS = 4
_NEAR = Fraction(1, 20)
"""How far from its value, as a share, an approximate result may be (`≈`)."""
_SLOPPY = 2
"""How far from its value an approximate result may be, in units of its last decimal."""
_FLOATING = Fraction(1, 10**12)
"""Relative error of a number that a computer has printed."""
_LONE_FRACTION = re.compile(r"\d+/\d+|\\frac\{\d+\}\{\d+\}")
_SCALES = tuple(Fraction(10) ** power for power in (2, 3, 6, 9))
"""A result that is off by one of these may be in another unit: percent, thousands, millions."""
_DIMENSIONS = (
    "second minute hour day week month year am pm millisecond",
    "meter centimeter millimeter kilometer inch foot yard mile",
    "gram kilogram milligram ton pound ounce",
    "liter milliliter gallon quart pint cup tablespoon teaspoon",
    "dollar cent penny pennie nickel dime quarter euro",
    "bit byte kilobyte megabyte gigabyte terabyte",
    "degree radian",
)
_COINS = frozenset(("cent", "penny", "pennie", "nickel", "dime", "quarter"))
_DIMENSION_OF = {unit: number for number, units in enumerate(_DIMENSIONS) for unit in units.split()}


@dataclass(frozen=True, slots=True)
class Steps:
    """The equations of a response: how many hold, those that do not, and how many could not be judged."""

    holding: int
    false: tuple[str, ...]
    not_judged: int


def check_steps(text: str) -> Steps:
    """Check every equation between numbers in a text."""
    holding, not_judged, false = 0, 0, []
    for equation in equations(text):
        holds = _holds(equation)
        if holds is None:
            not_judged += 1
        elif holds:
            holding += 1
        else:
            false.append(equation.text)
    return Steps(holding, tuple(false), not_judged)


def _holds(equation: Equation) -> bool | None:
    """Whether an equation holds; None if it cannot be judged."""
    left, right = equation.left, equation.right
    if left is None or right is None or not left.operators:
        return None
    values = exact_value(left.text), exact_value(right.text)
    if values[0] is None or values[1] is None:
        return None
    a, b = values[0].value, values[1].value
    if a == b or (a in (100 * b, b / 100) and "%" in left.units | right.units):
        return True
    near = abs(a - b) <= _NEAR * max(abs(a), abs(b))
    if equation.approximate:
        return _holds_about(a, b, left, right) if near else None
    if _may_be_rounded(a, b, left, right):
        return True if near else None
    return None if _means_another(a, b, left, right) else False


def _holds_about(a: Fraction, b: Fraction, left: Side, right: Side) -> bool | None:
    """Whether a near value may stand behind `≈`: one with decimals has to be right to them (`35/7 ≈ 5.095` is not).

    None if the other side has decimals, which may be rounded themselves.
    """
    decimals = _DECIMAL.findall(right.text)
    if right.operators or not decimals:
        return True
    place = Fraction(1, 10 ** len(decimals[0].partition(".")[2]))
    if abs(a - b) < _SLOPPY * place or _within_rounding(left, b):
        return True
    return None if _DECIMAL.search(left.text) else False


def _may_be_rounded(a: Fraction, b: Fraction, left: Side, right: Side) -> bool:
    """Whether one side is the other one rounded or cut off, to the decimals that it shows."""
    for value, rounded, shown in ((a, b, right), (b, a, left)):
        decimals = _DECIMAL.findall(shown.text)
        if shown.operators or not (decimals or value.denominator > 1):
            continue
        place = Fraction(1, 10 ** len(decimals[0].partition(".")[2])) if decimals else Fraction(1)
        # A number copied from a computer may be off in its last digits: `26.666666666666668`.
        if abs(value - rounded) < max(place, abs(value) * _FLOATING if decimals else 0):
            return True
    return any(_within_rounding(side, other) for side, other in ((left, b), (right, a)))


def _within_rounding(side: Side, result: Fraction) -> bool:
    """Whether a side can give a result if each of its decimals is a rounded number."""
    decimals = list(_DECIMAL.finditer(side.text))
    if not 0 < len(decimals) <= _MOST_DECIMALS:
        return False
    found = []
    for signs in product((-1, 1), repeat=len(decimals)):
        text = side.text
        for match, sign in reversed(list(zip(decimals, signs, strict=True))):
            digits = match[0].replace(",", "")
            half = Fraction(sign, 2 * 10 ** len(digits.partition(".")[2]))
            moved = Fraction(digits) + half
            text = f"{text[: match.start()]}({moved.numerator}/{moved.denominator}){text[match.end() :]}"
        value = exact_value(text)
        if value is None:
            return False
        found.append(value.value)
    return min(found) <= result <= max(found)


def _means_another(a: Fraction, b: Fraction, left: Side, right: Side) -> bool:
    """Whether a false equation is probably meant otherwise: a running chain, other units, another scale."""
    first = exact_value(right.leading.rstrip("% "))
    if right.operators and first is not None and first.value == a:
        return True
    if "%" in left.units | right.units:
        return True  # `200 + 10% = 220`
    if a == -b:
        return True  # `5 - 100 = 95`: the difference, whichever is taken from which
    if left.units and _LONE_FRACTION.fullmatch(left.text):
        return True  # `1/4 cup = 15`: in another unit
    if (
        left.units
        and right.units
        and not {name_of(unit) for unit in left.units} & {name_of(unit) for unit in right.units}
    ):
        return True  # `1 tray * 2 trays = 48 eggs`: something that is not written comes in
    if any(a == b * scale or b == a * scale for scale in _SCALES):
        return True
    units = {name_of(unit) for unit in left.units | right.units}
    if units & _COINS and not all({name_of(unit) for unit in side.units} & _COINS for side in (left, right)):
        return True  # `$2 - 50 cents = $1.50`
    dimensions = [_DIMENSION_OF[unit] for unit in units if unit in _DIMENSION_OF]
    return len(dimensions) > len(set(dimensions))
