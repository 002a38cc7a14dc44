"""What would be read of problem files, before anything is started: files, layout, refusals, examples, lengths."""

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from offsft.config import Recipe
from offsft.data.contamination import suite_overlap
from offsft.data.files import existing_files, read_rows, skipped_files
from offsft.data.layouts import unread_fields
from offsft.data.rows import RawRow
from offsft.data.sifting import ProblemSource, Room, parsed_row, sift
from offsft.errors import ConfigError, ModelError, StorageError
from offsft.models import resolve_model
from offsft.prompts import load_prompts

_BATCH_ROWS = 256
_FIRST = 10
_MEASURED = 2000
"""Rows whose lengths are all measured; of those behind them only long ones are, so that a large file takes seconds."""
_PROMPT_BYTES = 1024
"""More than a prompt has beside the problem."""


@dataclass(slots=True)
class Inspection:
    """What an intake would read. `examples` has the first refused row of each reason: its place and the detail."""

    files: list[str]
    skipped: list[str]
    why: str
    unread: list[str]
    format: str
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    first: list[dict[str, Any]] = field(default_factory=list)
    tokens: dict[str, Any] | None = None
    no_tokens: str = ""
    """Why lengths could not be measured; then no row is refused as too long."""

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `json=true`."""
        return {
            "files": self.files,
            "format": self.format,
            "rows": self.rows,
            "rejected": dict(self.rejected.most_common()),
            "first": self.first,
            "tokens": self.tokens,
        }


def inspect_rows(recipe: Recipe) -> Inspection:
    """Read the recipe's problems as its intake would, without Ray: those of `data.path`, or else of `evaluate.path`.

    Raises:
        ConfigError: neither is set, or the paths or the format are not clear.
        DataError: a file is missing, empty, or of a kind that is not read.
    """
    source, response_tokens = _source(recipe)
    files = existing_files(source.rows, source.setting)
    reader = source.reader(files)
    room, no_tokens = _room(recipe, response_tokens)
    skipped = skipped_files(source.rows, source.setting)
    found = Inspection(files, skipped, reader.why, [], reader.form, no_tokens=no_tokens)
    lengths: list[tuple[int, int]] = []
    fitting = recipe.model.context_tokens - response_tokens - _PROMPT_BYTES

    def room_of(number: int, row: RawRow) -> Room | None:
        # A token has a byte at least: of the later rows only long ones can be too long.
        return room if number < _MEASURED or len(row.raw) > fitting else None

    numbered = enumerate(RawRow(file, line, raw) for file in files for line, raw in read_rows(file))
    parsed = (parsed_row(row, reader, room_of(number, row)) for number, row in numbered)
    for row in sift(iter(lambda: list(islice(parsed, _BATCH_ROWS)), []), source):
        if row["reason"] is not None:
            found.rejected[row["reason"]] += 1
            found.examples.setdefault(row["reason"], f"{row['file']}:{row['line']}: {row['detail']}")
        else:
            found.rows += 1
            if len(found.first) < _FIRST:
                found.first.append(_shown(row))
        if row.get("tokens"):
            lengths.append(row["tokens"])
    found.unread = unread_fields(_first_object(files), reader.form, reader.fields)
    found.tokens = _lengths(lengths, recipe.model.context_tokens, response_tokens, found.rejected["too_long"])
    return found


def _source(recipe: Recipe) -> tuple[ProblemSource, int]:
    """What is read, and the tokens that a response may have."""
    if recipe.data.path != "generated":
        excluded = suite_overlap(recipe.data, recipe.evaluate.suite_folder)
        return ProblemSource("data.path", recipe.data, recipe.domain, excluded), recipe.rewrite.max_tokens
    if recipe.evaluate.path != "generated":
        return ProblemSource("evaluate.path", recipe.evaluate, recipe.domain), recipe.evaluate.max_tokens
    raise ConfigError("data.path is not set; add data.path=FILE, a folder, a pattern or hf://owner/name")


def _room(recipe: Recipe, response_tokens: int) -> tuple[Room | None, str]:
    try:
        model, settings = resolve_model(recipe.model), recipe.model
        prompts = load_prompts(model, settings.revision, recipe.prompt, settings.thinking)
        return Room(prompts, settings.context_tokens, response_tokens), ""
    except (ConfigError, ModelError, StorageError, ImportError) as error:
        return None, " ".join(str(error).split())


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ("problem", "solution", "answer")}
    return shown | {"check": json.loads(row["check"]) if row["check"] else {}}


def _first_object(files: list[str]) -> dict[str, Any]:
    for file in files:
        for _, raw in read_rows(file):
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                return row
    return {}


def _lengths(found: list[tuple[int, int]], context: int, response: int, too_long: int) -> dict[str, Any] | None:
    """Median, 95th percentile and maximum of prompts and solutions; None without a tokenizer or rows."""
    if not found:
        return None

    def spread(values: list[int]) -> dict[str, int]:
        ordered = sorted(values)
        return {name: ordered[round(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))}  # fmt: skip

    prompts, solutions = zip(*found, strict=True)
    return {
        "prompt": spread(list(prompts)),
        "solution": spread(list(solutions)),
        "response": response,
        "context": context,
        "too_long": too_long,
        "measured": len(found),
    }
