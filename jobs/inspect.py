"""python -m jobs.inspect [RECIPE.yaml] data.path=... [json=true] [key=value ...]

Show what would be read of problem files, before anything is started or paid for. It shows the files, the format and why,
usable rows, reasons of refusal with an example each, the first problems, and token lengths against the context.
Without data.path, the held-out problems at evaluate.path are shown.

    python -m jobs.inspect data.path=hf://openai/gsm8k/main data.split=train data.format=auto

With json=true it prints one object:

    {"files": [...], "format": "gsm8k", "rows": 7473, "rejected": {"duplicate": 2},
     "first": [{"problem": "...", "solution": "...", "answer": "72", "check": {}}], "tokens": {...}}

Exits with 1 if no row is usable.
"""

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from offsft.errors import DataError

from .cli import find_recipe, run_on_stdout

if TYPE_CHECKING:
    from offsft.data.inspection import Inspection

_SHOWN = 3
_WIDTH = 110
_CHARACTERS = 600


def _inspect(path: Path | None, arguments: list[str]) -> None:
    from offsft.config.loading import load

    as_json = "json=true" in arguments
    overrides = [argument for argument in arguments if argument not in ("json=true", "json=false")]
    recipe = load(find_recipe(str(path)) if path else None, [*([] if path else ["run=runs/inspect"]), *overrides])

    from offsft.data.inspection import inspect_rows

    found = inspect_rows(recipe)
    if as_json:
        import json

        _print(json.dumps(found.summary, ensure_ascii=False))
    else:
        _print("\n".join(_lines(found)))
    if not found.rows:
        reasons = ", ".join(f"{number} {reason}" for reason, number in found.rejected.most_common()) or "no rows"
        tried = recipe.data.format == "auto"
        more = "name their fields with data.fields.problem=..., .solution=... and .answer=..." if tried else "data.format=auto looks for the layout of the rows"  # fmt: skip
        raise DataError(f"not one row is a usable problem ({reasons}); {more}")


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.buffer.flush()


def _lines(found: "Inspection") -> list[str]:
    lines = _listed("files", found.files) + _listed("not read", found.skipped)
    lines += _wrapped("format", f"{found.format}: {found.why}")
    lines += _wrapped("fields", f"nothing is read from {', '.join(found.unread)}") if found.unread else []
    lines += _wrapped("rows", f"{found.rows:,} usable, {found.rejected.total():,} refused")
    for reason, number in found.rejected.most_common():
        lines += _wrapped("", f"{number:,} {reason}, such as {found.examples[reason]}")
    lines += _wrapped("tokens", _lengths(found))
    for number, problem in enumerate(found.first[:_SHOWN], start=1):
        lines += ["", f"{number}."]
        for name in ("problem", "solution", "answer", "check"):
            lines += _wrapped(name, str(problem[name] or "(none)"), whole=False)
    return lines


def _listed(name: str, paths: list[str]) -> list[str]:
    shown = paths[:5] + ([f"and {len(paths) - 5} more"] if len(paths) > 5 else [])
    return [f"{name if not number else '':9} {path}" for number, path in enumerate(shown)]


def _wrapped(name: str, text: str, *, whole: bool = True) -> list[str]:
    text = text if whole or len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} ... ({len(text):,} characters)"
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, _WIDTH - 10) or [""]]
    return [f"{name if not number else '':9} {line}".rstrip() for number, line in enumerate(lines)]


def _lengths(found: "Inspection") -> str:
    if found.tokens is None:
        return f"not measured: {found.no_tokens or 'there is no problem'}"
    said = [
        f"{name} {found.tokens[name]['p50']:,} (median), {found.tokens[name]['p95']:,} (95 %), {found.tokens[name]['max']:,} (longest)"
        for name in ("prompt", "solution")
    ]
    return (
        f"{'; '.join(said)}, of {found.tokens['measured']:,} rows; with {found.tokens['response']:,} for the response, {found.tokens['too_long']:,} rows do not"
        f" fit into model.context_tokens={found.tokens['context']:,}"
    )


if __name__ == "__main__":
    run_on_stdout(_inspect, str(__doc__))
