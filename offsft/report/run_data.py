"""Reads the report's data from a run's folder, streamed: figures see every row, the page carries the first ones."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa

from offsft.errors import RunFolderError
from offsft.records import Outcome
from offsft.storage.paths import StoragePath, open_parquet, parquet_files

MAX_ROWS = 2000
"""Most rows of a table that the page carries."""
MAX_ROW_CHARACTERS = 16_000_000
"""Most text that the rows of one table add to the page; with long texts fewer than MAX_ROWS are carried."""
MAX_TEXT_CHARACTERS = 6000
"""Longest single text that the page carries; the rest is only in the Parquet files."""
MAX_QUARANTINE_ROWS = 200

_BATCH_ROWS = 512


@dataclass(slots=True)
class Carried:
    """The first rows of a table, as many as fit the page's limits, and the total number."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    characters: int = 0

    def full(self, tables: int = 1) -> bool:
        """Whether the page's limits, shared evenly by `tables` tables, are reached."""
        return tables * len(self.rows) >= MAX_ROWS or tables * self.characters >= MAX_ROW_CHARACTERS

    def add(self, row: dict[str, Any]) -> None:
        """Add the row with its texts cut."""
        kept = cut_texts(row)
        self.rows.append(kept)
        self.characters += len(json.dumps(kept, ensure_ascii=False))


@dataclass(slots=True)
class Rewrites:
    """All rewrites, as far as figures need them. Arrays have one entry per row, `[R]`; log-probs are nats per token."""

    expert_logprobs: np.ndarray
    kept_logprobs: np.ndarray
    sources: np.ndarray
    names: list[str]
    """The sources in order: those of the recipe, then others found in the rows."""
    outcomes: Counter[tuple[str, str]]
    """Number of attempts by (stage, outcome)."""
    carried: Carried


def read_rewrites(folder: StoragePath, names: Sequence[str] = ()) -> Rewrites | None:
    """The rewrites in a folder of Parquet files; None if there are no rows. `names` are the recipe's sources in order.

    Raises:
        RunFolderError: a file cannot be read or lacks a column.
    """
    expert, kept, sources = [], [], []
    outcomes: Counter[tuple[str, str]] = Counter()
    carried = Carried()
    numeric = ["source", "expert_mean_logprob", "policy_logprobs"]
    for batch in _batches(folder, [*numeric, "attempts", "id", "problem", "answer", "solution", "response"]):
        expert.append(batch["expert_mean_logprob"].to_numpy(zero_copy_only=False))
        kept.append(_list_means(batch["policy_logprobs"]))
        sources.extend(batch["source"].to_pylist())
        attempts = batch["attempts"].flatten()
        outcomes.update(zip(attempts.field("stage").to_pylist(), attempts.field("outcome").to_pylist(), strict=True))
        carried.total += batch.num_rows
        _carry(carried, batch.drop_columns(numeric[1:]), extra={"kept": kept[-1], "expert": expert[-1]})
    if not sources:
        return None
    names = [*names, *sorted(set(sources) - set(names))]
    return Rewrites(np.concatenate(expert), np.concatenate(kept), np.array(sources), names, outcomes, carried)


def read_answers(evaluation: StoragePath) -> Carried | None:
    """Held-out problems with the samples of each evaluated model; None if there are none.

    A row holds id, problem, answer, and `base` and `trained`: lists of {response, outcome, extracted, tokens}.
    """
    carried = Carried()
    columns = ["id", "problem", "answer", "samples"]
    for batch in _batches(evaluation / "base", columns):
        carried.total += batch.num_rows
        _carry(carried, batch.rename_columns(["id", "problem", "answer", "base"]))
    by_id = {row["id"]: row for row in carried.rows}
    for batch in _batches(evaluation / "trained", ["id", "samples"]):
        for row in batch.to_pylist():
            if row["id"] in by_id:
                by_id[row["id"]]["trained"] = cut_texts(row)["samples"]
    return carried if carried.rows else None


def read_samples(evaluation: StoragePath, models: list[str], suites: set[str]) -> Carried:
    """Answered problems of these suites, one row per problem and model, read in turn, a batch per model.

    Each suite has an equal share of the page's limits. A row holds model, suite, id, problem, answer, `samples` and
    `greedy` as in EVALUATION_SCHEMA.
    """
    found = {suite: Carried() for suite in suites}
    columns = ["id", "suite", "problem", "answer", "samples", "greedy"]
    batches = [_batches(evaluation / model, columns) for model in models]
    for turn in zip_longest(*batches):
        for model, batch in zip(models, turn, strict=True):
            for row in batch.to_pylist() if batch is not None else []:
                if row["suite"] in suites:
                    carried = found[row["suite"]]
                    carried.total += 1
                    if not carried.full(len(suites)):
                        carried.add({"model": model, **row})
    rows = [row for carried in found.values() for row in carried.rows]
    rows.sort(key=lambda row: (row["suite"], row["id"], models.index(row["model"])))
    return Carried(rows, sum(carried.total for carried in found.values()))


def read_quarantine(folders: list[StoragePath]) -> Carried:
    """The first quarantined rows (at most MAX_QUARANTINE_ROWS), and the total number."""
    carried = Carried()
    for folder in folders:
        for batch in _batches(folder, ["file", "line", "reason", "detail", "raw"]):
            carried.total += batch.num_rows
            for row in batch.slice(0, MAX_QUARANTINE_ROWS - len(carried.rows)).to_pylist():
                carried.add(row)
    return carried


def read_metrics(path: StoragePath) -> dict[str, np.ndarray]:
    """The training's metrics by name, each `[steps]`, in order of `step`; NaN where a step lacks one.

    A step repeated after a restart counts once, with its later figures. A last line without a line end was cut short by
    a kill, and is left out.

    Raises:
        RunFolderError: a complete line is not a JSON object with a step.
    """
    if not path.exists():
        return {}
    by_step: dict[int, dict[str, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            metrics = json.loads(line)
            by_step[metrics["step"]] = metrics
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path}, line {number}: not a JSON object with a step ({error}); remove it") from None
    names = sorted({name for metrics in by_step.values() for name in metrics})
    steps = sorted(by_step)
    return {name: np.array([_number(by_step[step].get(name)) for step in steps]) for name in names if steps}


def accuracy_group(row: dict[str, Any]) -> str:
    """A held-out problem's change: improved, worsened, or if unchanged, solved (at least once) or unsolved."""
    base, trained = (_accuracy(row[model]) if row.get(model) else None for model in ("base", "trained"))
    assert base is not None, row["id"]
    if trained is None or trained == base:
        return "solved" if base > 0 else "unsolved"
    return "improved" if trained > base else "worsened"


def cut_texts(value: Any) -> Any:
    """A copy of the tree with every text cut to MAX_TEXT_CHARACTERS; a note marks each cut."""
    if isinstance(value, dict):
        return {key: cut_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [cut_texts(item) for item in value]
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return f"{value[:MAX_TEXT_CHARACTERS]} … ({len(value) - MAX_TEXT_CHARACTERS:,} more characters)"
    return value


def _carry(carried: Carried, batch: pa.RecordBatch, extra: dict[str, np.ndarray] | None = None) -> None:
    if carried.full():
        return
    for index, row in enumerate(batch.to_pylist()):
        if carried.full():
            return
        carried.add(row | {name: _finite(float(values[index])) for name, values in (extra or {}).items()})


def _batches(folder: StoragePath, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path in parquet_files(folder):
        try:
            with open_parquet(path) as file:
                missing = set(columns) - set(file.schema_arrow.names)
                if missing:
                    raise RunFolderError(
                        f"{path} lacks {', '.join(sorted(missing))}; it was not written by this version"
                    )
                yield from file.iter_batches(_BATCH_ROWS, columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunFolderError(
                f"{path} cannot be read as Parquet: {error}; delete it and run the stage again"
            ) from None


def _list_means(lists: pa.ListArray) -> np.ndarray:
    """Mean of each list, `[R]`; NaN for an empty one."""
    values = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
    lengths = np.asarray(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
    ends = np.concatenate([[0.0], np.cumsum(values)])[np.cumsum(lengths)]
    sums = np.diff(ends, prepend=0.0)
    return np.divide(sums, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)


def _accuracy(samples: list[dict[str, Any]]) -> float:
    return sum(sample["outcome"] == Outcome.CORRECT for sample in samples) / len(samples)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
