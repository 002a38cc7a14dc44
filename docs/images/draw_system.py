"""Draw system.svg, the figure of the README: `python -m docs.images.draw_system` from the repository's root.

The colours are like the report's, in a light and a dark scheme which the browser chooses between.
"""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 980, 392
COLORS = {
    "ink": ("#1d2129", "#e6e8ec"),
    "muted": ("#5c6470", "#a2a9b4"),
    "paper": ("#fffffe", "#16191e"),
    "strong": ("#fefefe", "#14171c"),
    "self": ("#2a6099", "#6ea8e0"),
    "guided": ("#dca637", "#e3b95a"),
    "expert": ("#b24d62", "#e08a9b"),
}
STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--ink); }
.small { font-size: 12.5px; fill: var(--muted); }
.title { font-weight: 600; font-size: 15px; }
.on-self, .on-expert { fill: var(--strong); font-weight: 600; }
.on-guided { fill: #231a02; font-weight: 600; }
.data { fill: none; stroke: var(--muted); stroke-dasharray: 4 3; }
.work { fill: none; stroke: var(--ink); stroke-width: 1.4; }
.arrow { fill: none; stroke: var(--muted); stroke-width: 1.4; marker-end: url(#head); }
"""
STAGES = (
    ("self", "the model solves the problem by itself"),
    ("guided", "again, with the expert's solution in view"),
    ("expert", "the expert's solution, as it stands"),
)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Words at a point; `anchor` is SVG's text-anchor."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, title: str, lines: list[str], kind: str) -> str:
    """A box (`data` or `work`) with its title and the lines below it in the middle."""
    middle, top = x + width / 2, y + height / 2 - 9 * len(lines) + 5
    words = [text(middle, top, title, "title")]
    words += [text(middle, top + 20 + 17 * number, line, "small") for number, line in enumerate(lines)]
    frame = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" class="{kind}"/>'
    return frame + "".join(words)


def arrow(*points: tuple[float, float]) -> str:
    """A line through the points, with a head at its end."""
    return f'<path class="arrow" d="M{" L".join(f"{x} {y}" for x, y in points)}"/>'


def cascade(x: float, y: float, width: float, height: float) -> str:
    """The box of the rewriting with the three stages of its cascade."""
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" class="work"/>']
    parts += [text(x + width / 2, y + 25, "Rewrite", "title")]
    for number, (name, meaning) in enumerate(STAGES):
        top = y + 40 + 56 * number
        parts.append(f'<rect x="{x + 14}" y="{top}" width="66" height="34" rx="5" fill="var(--{name})"/>')
        parts.append(text(x + 47, top + 22, name, f"on-{name}"))
        parts.append(text(x + 90, top + 22, meaning, "", "start"))
        if number < 2:
            parts.append(arrow((x + 47, top + 34), (x + 47, top + 53)))
            parts.append(text(x + 58, top + 49, "if no sample is verified as correct", "small", "start"))
    parts.append(text(x + width / 2, y + height - 14, "vLLM engines and a verifier, on Ray Data", "small"))
    return "".join(parts)


def variables(scheme: int) -> str:
    """The colours as CSS variables for one scheme: 0 is light, 1 dark."""
    return " ".join(f"--{name}: {both[scheme]};" for name, both in COLORS.items())


def draw() -> str:
    """The figure as SVG."""
    flow = [
        box(12, 88, 128, 100, "Problems", ["with an expert's", "worked solutions"], "data"),
        arrow((140, 138), (166, 138)),
        cascade(170, 24, 404, 228),
        arrow((574, 138), (600, 138)),
        box(604, 88, 112, 100, "rewrites/", ["responses,", "token ids,", "log-probs"], "data"),
        arrow((716, 138), (742, 138)),
        box(
            746,
            76,
            132,
            124,
            "Train",
            ["the loss weights", "the gap that is", "left; DeepSpeed", "on Ray Train"],
            "work",
        ),
        arrow((878, 138), (900, 138)),
        box(904, 104, 68, 68, "model/", [], "data"),
        arrow((938, 172), (938, 296)),
        box(
            746,
            300,
            226,
            72,
            "Evaluate",
            ["base against trained:", "summary.json, report.html"],
            "work",
        ),
        arrow((904, 160), (890, 160), (890, 264), (660, 264), (660, 296)),
        box(
            170,
            300,
            546,
            72,
            "Serve",
            ["OpenAI-compatible HTTP for every model; /v1/rewrite runs the same cascade", "Ray Serve"],
            "work",
        ),
        arrow((372, 252), (372, 296)),
    ]
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="var(--muted)"/></marker>'
    )
    dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {variables(1)} }} }}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' aria-label="Problems are rewritten, the model is trained on the rewrites, evaluated and served">\n'
        f"<style>svg {{ {variables(0)} }}\n{dark}{STYLE}</style>\n<defs>{head}</defs>\n"
        + f'<rect width="{WIDTH}" height="{HEIGHT}" fill="var(--paper)"/>\n'
        + "\n".join(flow)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("system.svg").write_text(draw(), encoding="utf-8")
