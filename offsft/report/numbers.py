"""Formats numbers for readers: non-breaking spaces before units, a true minus sign, commas between thousands."""

SPACE = "\u00a0"
_MINUS = "\u2212"


def count(value: float) -> str:
    """A whole number: `12,345`."""
    return _with_minus_sign(f"{round(value):,}")


def compact(value: float) -> str:
    """A number short enough for a tile: `950`, `14.2 k`, `3.1 M`, `2.0 G`."""
    for scale, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= scale:
            return _with_minus_sign(f"{value / (1e3 if suffix == 'k' else scale):.1f}") + SPACE + suffix
    return count(value)


def percent(share: float, digits: int = 0) -> str:
    """A share of 1 as a percentage: `37 %`."""
    return _with_minus_sign(f"{100 * share:.{digits}f}") + SPACE + "%"


def points(share: float) -> str:
    """A difference of two shares in percentage points, always signed: `+19.0`."""
    return _with_minus_sign(f"{100 * share:+.1f}")


def nats(value: float, *, sign: bool = False) -> str:
    """A log-probability, or (with `sign`) a difference of two: `−0.71`, `+0.91`."""
    return _with_minus_sign(f"{value:+.2f}" if sign else f"{value:.2f}")


def decimal(value: float) -> str:
    """Four significant digits, plain where that is readable: `0.3127`, `1.4e−5`."""
    digits, exponent, power = f"{value:.4g}".partition("e")
    return _with_minus_sign(f"{digits}e{int(power)}" if exponent else digits)


def _with_minus_sign(text: str) -> str:
    return text.replace("-", _MINUS)
