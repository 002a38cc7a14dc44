"""Writes report.html and figures/: one self-contained page per run, and its figures as PNG."""

import base64
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from offsft.config.loading import flatten
from offsft.errors import RunFolderError
from offsft.report import numbers, palette, words
from offsft.report.drawings import draw
from offsft.report.run_data import (
    Carried,
    Rewrites,
    accuracy_group,
    read_answers,
    read_metrics,
    read_quarantine,
    read_rewrites,
)
from offsft.report.summary import read_summary
from offsft.runtime.console import span
from offsft.storage.paths import StoragePath, write_text_atomically

_ASSETS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Browse:
    """A table to browse: the number of rows on the page and in total, and those rows as JSON safe in a script.

    `groups` are the groups that the rows can be filtered by, as JSON: a name and a palette colour each.
    """

    carried: int
    total: int
    rows: Markup
    groups: str = "[]"


def write_report(run: StoragePath) -> None:
    """Write `report.html` and `figures/*.png` into the run's folder from its stages' output.

    A stage without output is shown as not run. The page needs no network and runs only its own script.

    Raises:
        RunFolderError: a file of the run is broken.
    """
    summary = read_summary(run)
    settings = _read_settings(run / "config.resolved.yaml")
    stages = (settings.get("rewrite") or {}).get("stages") or []
    rewrites = read_rewrites(run / "rewrites", [stage["name"] for stage in stages])
    answers = read_answers(run / "evaluation")
    metrics = read_metrics(run / "metrics.jsonl")
    page = render(
        "page.html.j2",
        name=run.resolve().name,
        summary=summary,
        rewrite=summary.get("rewrite"),
        train=summary.get("train"),
        evaluate=summary.get("evaluate"),
        words=words,
        drawings=draw(run, summary, rewrites, metrics, read_metrics(run / "held_out.jsonl")),
        rewrites_found=rewrites.carried.total if rewrites else 0,
        browse_rewrites=_browse_rewrites(rewrites) if rewrites else None,
        browse_answers=_browse_answers(answers) if answers else None,
        quarantine=read_quarantine([run / "quarantine", *sorted((run / "evaluation").glob("*quarantine"))]),
        settings=[(key, json.dumps(value, ensure_ascii=False)) for key, value in flatten(settings).items()],
    )
    write_text_atomically(run / "report.html", page)


def render(template: str, **values: Any) -> str:
    """A self-contained page: a template with these values, the style, the script, and the hash that lets it run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": numbers.count,
        "percent": numbers.percent,
        "decimal": numbers.decimal,
        "nats": numbers.nats,
        "span": lambda seconds: span(seconds).replace(" ", numbers.SPACE),
    }
    script = (_ASSETS / "page.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        light_colors=Markup(palette.css_variables("light")),
        dark_colors=Markup(palette.css_variables("dark")),
        style=Markup((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def safe_json(value: Any) -> Markup:
    """JSON that is safe inside a `<script>` element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def browse(carried: Carried) -> Browse:
    """The data of a page's table to browse."""
    return Browse(len(carried.rows), carried.total, safe_json(carried.rows))


def _browse_rewrites(rewrites: Rewrites) -> Browse:
    colors = palette.source_colors(rewrites.names).items()
    groups = json.dumps([[source, color.replace("_", "-")] for source, color in colors])
    return replace(browse(rewrites.carried), groups=groups)


def _browse_answers(carried: Carried) -> Browse:
    rows = [row | {"group": accuracy_group(row)} for row in carried.rows]
    return Browse(len(rows), carried.total, safe_json(rows))


def _read_settings(path: StoragePath) -> dict[str, Any]:
    """The resolved recipe; empty if there is none."""
    if not path.exists():
        return {}
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RunFolderError(
            f"{path} is not valid YAML: {error}; run the recipe again to have it written anew"
        ) from None
