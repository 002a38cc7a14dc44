"""Saves matplotlib figures as inline SVG in the page's colours and fonts, and as PNG."""

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

from offsft.report.palette import COLORS, light, variable
from offsft.storage.paths import StoragePath, make, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 200

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: crisp, searchable, and in the page's own font
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "legend.handlelength": 0.9,
    "legend.handleheight": 0.9,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
}
"""matplotlib settings for drawing and saving figures."""

_VARIABLES = {color.light: f"var({variable(name)})" for name, color in COLORS.items()}


def to_svg(figure: "Figure", name: str, description: str) -> str:
    """The figure as an `<svg>` element whose ids begin with `name`; `description` is for screen readers.

    The light colours of the palette become the page's variables, so that the figure follows the colour scheme.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLES.get(match[0], match[0]), svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    svg = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)


def to_png(figure: "Figure", path: StoragePath) -> None:
    """Save the figure as PNG in the light colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=light("paper"))
    make(path.parent)
    write_bytes(path, buffer.getvalue())
