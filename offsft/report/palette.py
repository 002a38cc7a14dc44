"""The report's colours, defined once for figures, badges and bars.

Sources get their colours by position. The first two and the demonstrations follow Paul Tol's high-contrast scheme
(blue, yellow, red: distinct for the colour-blind and in grey).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from offsft.records import EXPERT, UNSOLVED


class Color(NamedTuple):
    """One colour, `#rrggbb`, for light and dark mode. No two entries share the light one: it identifies the entry."""

    light: str
    dark: str
    ink: str = "on_strong"
    """Name of the ink colour readable on it."""


COLORS = {
    "ink": Color("#1d2129", "#e6e8ec"),
    "muted": Color("#5c6470", "#a2a9b4"),
    "grid": Color("#dfe2e7", "#333943"),
    "paper": Color("#fffffe", "#16191e"),
    "on_strong": Color("#fefefe", "#14171c"),
    "on_bright": Color("#231a02", "#231a02"),
    "on_faint": Color("#14171d", "#ffffff"),
    "stage_1": Color("#2a6099", "#6ea8e0"),
    "stage_2": Color("#dca637", "#e3b95a", ink="on_bright"),
    "stage_3": Color("#5b4a9c", "#a99be0"),
    "stage_4": Color("#2f7785", "#7cc3d1"),
    "stage_5": Color("#86683a", "#cdae78"),
    "stage_6": Color("#5c762c", "#acc878"),
    "expert": Color("#b24d62", "#e08a9b"),
    "unsolved": Color("#c2c7cf", "#525b67", ink="on_faint"),
    "base": Color("#767e8a", "#8f97a4"),
    "trained": Color("#1c7c6e", "#55bfae"),
    "correct": Color("#1c7c6d", "#55bfad"),
    "wrong": Color("#6b7380", "#8d96a4"),
    "no_answer": Color("#a5acb8", "#5f6875", ink="on_faint"),
    "truncated": Color("#cfd4dc", "#434b57", ink="on_faint"),
    "leaked": Color("#7c69ab", "#b3a3dc"),
    "bare": Color("#96597a", "#d3a6bb"),
    "unsupported": Color("#a2476b", "#e39ab8"),
    "false_step": Color("#8a5a1f", "#d8a767"),
    "copied": Color("#4f6f8f", "#9dbad6"),
    "timeout": Color("#946a4b", "#c79a78"),
    "error": Color("#4b3a2e", "#e2c9b4"),
    "too_long": Color("#e4dcc8", "#5b5646", ink="on_faint"),
    "skipped": Color("#e9ecf1", "#3a414c", ink="on_faint"),
    "given_up": Color("#d9d2e6", "#4d4660", ink="on_faint"),
    "unanswered": Color("#c9b48f", "#8a7550", ink="on_faint"),
}


def variable(name: str) -> str:
    """The page's CSS variable of a colour: `--no-answer`."""
    return f"--{name.replace('_', '-')}"


def css_variables(scheme: Literal["light", "dark"]) -> str:
    """CSS declarations of all colours for one colour scheme: `--stage-1: #2a6099; ...`."""
    return " ".join(f"{variable(name)}: {getattr(color, scheme)};" for name, color in COLORS.items())


_STAGES = [name for name in COLORS if name.startswith("stage_")]


def source_colors(sources: Sequence[str]) -> dict[str, str]:
    """The palette entry of each source, by position; demonstrations and unsolved problems have their own."""
    stages = [source for source in sources if source not in (EXPERT, UNSOLVED)]
    by_position = {source: _STAGES[number % len(_STAGES)] for number, source in enumerate(stages)}
    return {source: by_position.get(source, source) for source in sources}


def light(name: str) -> str:
    """The light colour, used in figures; `offsft.report.svg` replaces it with the page's variable."""
    return COLORS[name].light


def ink_on(name: str) -> str:
    """The light colour of text on a colour."""
    return light(COLORS[name].ink)
