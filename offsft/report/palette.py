"""The report's colours, named once for figures, badges and bars.

Sources follow Paul Tol's high-contrast scheme (blue, yellow, red: distinct for the colour-blind and in grey).
"""

from typing import Literal, NamedTuple


class Color(NamedTuple):
    """One colour, `#rrggbb`, on light and on dark paper. No two entries share the light one: it identifies the entry."""

    light: str
    dark: str
    ink: str = "on_strong"
    """Entry of the ink that is readable on it."""


COLORS = {
    "ink": Color("#1d2129", "#e6e8ec"),
    "muted": Color("#5c6470", "#a2a9b4"),
    "grid": Color("#dfe2e7", "#333943"),
    "paper": Color("#fffffe", "#16191e"),
    "on_strong": Color("#fefefe", "#14171c"),
    "on_guided": Color("#231a02", "#231a02"),
    "on_faint": Color("#14171d", "#ffffff"),
    "self": Color("#2a6099", "#6ea8e0"),
    "guided": Color("#dca637", "#e3b95a", ink="on_guided"),
    "expert": Color("#b24d62", "#e08a9b"),
    "base": Color("#767e8a", "#8f97a4"),
    "trained": Color("#1c7c6e", "#55bfae"),
    "correct": Color("#1c7c6d", "#55bfad"),
    "wrong": Color("#6b7380", "#8d96a4"),
    "no_answer": Color("#a5acb8", "#5f6875", ink="on_faint"),
    "truncated": Color("#cfd4dc", "#434b57", ink="on_faint"),
    "leaked": Color("#7c69ab", "#b3a3dc"),
    "bare": Color("#96597a", "#d3a6bb"),
    "timeout": Color("#946a4b", "#c79a78"),
    "error": Color("#4b3a2e", "#e2c9b4"),
    "too_long": Color("#e4dcc8", "#5b5646", ink="on_faint"),
}


def variable(name: str) -> str:
    """The page's CSS variable of a colour: `--no-answer`."""
    return f"--{name.replace('_', '-')}"


def css_variables(scheme: Literal["light", "dark"]) -> str:
    """Declarations of every colour for one colour scheme: `--self: #2a6099; ...`."""
    return " ".join(f"{variable(name)}: {getattr(color, scheme)};" for name, color in COLORS.items())


def light(name: str) -> str:
    """The colour that figures are drawn in; `offsft.report.svg` exchanges it for the page's variable."""
    return COLORS[name].light


def ink_on(name: str) -> str:
    """The light colour of text that is written on a colour."""
    return light(COLORS[name].ink)
