"""Mathematical equality by math-verify, checked numerically where it gives up or rounds too much."""

import re
from itertools import product
from typing import Any

from offsft.config import Tolerance

EXACT = Tolerance()
DECIMAL_PLACES = 6
"""A decimal may stand for another number if it is right to this many places, which is also math-verify's precision."""
SIGNIFICANT = 5e-6
"""It must also differ by no more than this share: small numbers are not all the same."""

_SAME_DIGITS = 1e-12
_DIGITS = 30
_NOTHING = 1e-60
"""Largest remainder of a sum that is zero, at sympy's working precision."""
_MOST_OPERATIONS = 400
_SUBSCRIPTED = re.compile(r"(?<![A-Za-z\\])[A-Za-z]_")
_DECIMAL = re.compile(r"\d\.\d|(?<!\d)\.\d")
_DROPPED_BY_THE_PARSER = re.compile(
    r"\\(?:forall|exists|Rightarrow|implies|iff|neg|lor|land)(?![A-Za-z])|\\text\{\s*(?:for (?:all|any|every|each|some)|if|when|unless|except)\b"
)
_DEGREES_INSIDE = re.compile(r"(\d+(?:\.\d+)?|[A-Za-z]|\\(?:alpha|beta|theta|varphi|phi)(?![A-Za-z]))\s*\^\\circ")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def same_mathematics(found: str, reference: str, tolerance: Tolerance) -> bool:
    """Whether two answers in plain LaTeX are equal, by rules first and then at several points."""
    if sorted(_DROPPED_BY_THE_PARSER.findall(found)) != sorted(_DROPPED_BY_THE_PARSER.findall(reference)):
        return False
    is_decimal = _DECIMAL.search(found) is not None or _DECIMAL.search(reference) is not None
    for one, other in product(read_expressions(reference), read_expressions(found)):
        if _lacks_variables(one, reference) or _lacks_variables(other, found):
            continue
        if _same(one, other, tolerance, is_decimal=is_decimal):
            return True
    return False


def read_expressions(text: str) -> list[Any]:
    """Math-verify's parse of a text: the readings as sympy expressions, and the text that it used."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    if _TRIGONOMETRIC.search(text):
        text = _DEGREES_INSIDE.sub(r"{(\\frac{\1 \\cdot \\pi}{180})}", text)
    # math-verify's own removal of units mistakes variables for units: it reads 5n as 5.
    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    configs = [LatexExtractionConfig(normalization_config=normalization), ExprExtractionConfig()]
    # Without math-verify's time limit: it is a SIGALRM, which works in a main thread only. The pool kills instead.
    return parse(f"\\boxed{{{text}}}", extraction_config=configs, parsing_timeout=0)


def _same(one: Any, other: Any, tolerance: Tolerance, *, is_decimal: bool) -> bool:
    from math_verify import verify

    one, other = _with_imaginary_unit(one, other)
    try:
        equal = verify(one, other, float_rounding=DECIMAL_PLACES, timeout_seconds=0, raise_on_error=True)
        agree = _agree(one, other, _SAME_DIGITS)
        if agree is not None:
            equal = agree or (is_decimal and equal and _agree(one, other, SIGNIFICANT) is True)
        return equal or (tolerance != EXACT and _close(one, other, tolerance))
    except MemoryError:
        raise
    except Exception:  # sympy raises exceptions of all kinds: if it cannot compare, they are not equal
        return False


def _with_imaginary_unit(one: Any, other: Any) -> tuple[Any, Any]:
    """Both expressions with `i` as the imaginary unit, if it is the only letter in them that has no value."""
    from sympy import Expr, I

    if not isinstance(one, Expr) or not isinstance(other, Expr) or {*_names(one), *_names(other)} != {"i"}:
        return one, other
    left, right = (each.xreplace(dict.fromkeys(each.free_symbols, I)) for each in (one, other))
    return left, right


def _agree(one: Any, other: Any, share: float) -> bool | None:
    """Whether two expressions differ by no more than a share at several points; None if that decides nothing.

    The points are positive, as arguments of roots and logarithms mostly are; at a negative one real values must agree
    too.
    """
    from sympy import Expr

    if not isinstance(one, Expr) or not isinstance(other, Expr) or _names(one) != _names(other):
        return None
    if one.count_ops() + other.count_ops() > _MOST_OPERATIONS:
        return None
    if not one.free_symbols:
        return _near(_value(one), _value(other), share)
    found: list[bool] = []
    for point in _points(_names(one)):
        left, right = (
            _value(each.xreplace({symbol: point[str(symbol)] for symbol in each.free_symbols})) for each in (one, other)
        )
        negative = any(value < 0 for value in point.values())
        if negative and (_has_branches(one, point) or _has_branches(other, point)):
            continue
        near = _near(left, right, share)
        if near is False:
            return False
        if near and not negative:
            found.append(near)
    return True if len(found) >= 2 else None


def _names(expression: Any) -> list[str]:
    """The names of the variables, in order: two readings of one letter may be different symbols."""
    return sorted({str(symbol) for symbol in expression.free_symbols})


def _has_branches(expression: Any, point: dict[str, Any]) -> bool:
    """Whether a root or a logarithm has a negative argument: the choice of its value is then a convention."""
    from sympy import Pow, log, preorder_traversal

    for part in preorder_traversal(expression):
        inside = (
            part.base
            if isinstance(part, Pow) and not part.exp.is_integer
            else part.args[0]
            if isinstance(part, log)
            else None
        )
        if (
            inside is not None
            and not inside.xreplace({symbol: point[str(symbol)] for symbol in inside.free_symbols}).is_nonnegative
        ):
            return True
    return False


def _points(names: list[str]) -> "list[dict[str, Any]]":
    from sympy import Rational

    return [
        {
            name: Rational(sign * _PRIMES[(turn + 3 * place) % len(_PRIMES)], 4 + turn)
            for place, name in enumerate(names)
        }
        for turn, sign in enumerate([1, 1, 1, -1])
    ]


def _value(expression: Any) -> complex | None:
    """The value with all digits that sympy computes; None if it is infinite or not a number."""
    import mpmath
    from sympy import N

    value = N(expression, _DIGITS)
    if not value.is_number or not value.is_finite:
        return None
    with mpmath.workdps(_DIGITS):
        return mpmath.mpmathify(value)


def _near(left: complex | None, right: complex | None, share: float) -> bool | None:
    if left is None or right is None:
        return None
    size = max(abs(left), abs(right))
    return bool(abs(left - right) <= share * size or size < _NOTHING)


def _lacks_variables(parsed: object, text: str) -> bool:
    """Whether math-verify read a number although the text names a quantity such as `E_{1}`, which it sometimes drops.

    In an equation the number is the right-hand side, so the name may be dropped.
    """
    from sympy import Expr

    names = "=" not in text and _SUBSCRIPTED.search(text) is not None
    return names and isinstance(parsed, Expr) and not parsed.free_symbols


def _close(gold: object, target: object, tolerance: Tolerance) -> bool:
    """Whether two of math-verify's expressions are numbers that differ by no more than the tolerance."""
    from sympy import Expr

    if not isinstance(gold, Expr) or not isinstance(target, Expr) or gold.free_symbols or target.free_symbols:
        return False
    reference = complex(gold.evalf())
    return abs(complex(target.evalf()) - reference) <= max(tolerance.absolute, tolerance.relative * abs(reference))
