"""Reads a run's rewrites once: the rows to train on as columns, and the sample for measuring the gap as rows."""

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offsft.config import TrainConfig
from offsft.errors import TrainingError
from offsft.records import EXPERT, UNSOLVED
from offsft.storage.paths import StoragePath, arrow, parquet_files
from offsft.train.columns import ColumnBuilder, ColumnRows, order_of
from offsft.train.rows import Row

RESPONSES = ("expert", "kept")
_ROWS_NAMED = 5
"""Most rows named in an error."""
_BATCH_ROWS = 1024
_BUFFER_BYTES = 2**20
"""Bytes of a column read at a time: otherwise a whole row group's column is in memory before its first row is seen."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Counts of a run's rewrites by their use in training; the same on every rank."""

    rows: int
    """Rows trained on."""
    cut: int
    """Rows longer than `train.max_tokens`, cut on the right."""
    dropped: int
    """Rows longer than `train.max_tokens`, dropped."""
    left_out: int
    """Rows left out because their source's weight is 0."""
    unsolved: int
    """Rows without a response: no stage solved their problem, and `rewrite.expert` is `none`."""
    held_out: int = 0
    """Rows measured along the way instead of trained on."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The data that training reads from a run's rewrites."""

    rows: ColumnRows
    counts: RowCounts
    sample: dict[str, list[Row]]
    """Rows whose gap is measured, by the kind of response: `expert` or `kept`. Empty where no sample was drawn."""
    held_out: ColumnRows
    """Rows of the `train.held_out_rows` problems that are not trained on."""


def load_rows(rewrites: StoragePath, settings: TrainConfig, *, sample_seed: int | None = None) -> Loaded:
    """Load all rewrites, or all expert solutions, in the order of their ids; `train.long_rows` decides on long ones.

    A row whose prompt alone fills `train.max_tokens` has no response left once cut, and trains nothing. With a seed,
    `train.gap_rows` rows are drawn from all rewrites or the held-out ones (`train.gap_from`), of every source, with long
    ones cut. Held-out rows go through the same selection as those for training, and are counted with them where they
    fail it.

    Raises:
        TrainingError: a row is too long and long rows are refused, a row's log-probs do not fit, or no row is left.
    """
    held_out = _hold_out(rewrites, settings.held_out_rows)
    among = held_out if settings.gap_from == "held_out" else None
    drawn = set() if sample_seed is None else _draw(rewrites, settings.gap_rows, sample_seed, among)
    reading = _Reading(settings, drawn, held_out)
    for batch in _batches(rewrites, reading.columns):
        reading.add(batch)
    return reading.finish()


def _draw(rewrites: StoragePath, most: int, seed: int, among: set[str] | None = None) -> set[int]:
    """Indices, in reading order, of rows drawn by the seed: the same rows in whatever order they were written.

    `among` are the ids of the rows to draw from; None: all.
    """
    ids = pa.chunked_array([batch["id"] for batch in _batches(rewrites, ["id"])], pa.string())
    order = order_of(ids)
    shuffled = order[np.random.default_rng(seed).permutation(len(order))].tolist()
    if among is not None:
        names = ids.to_pylist()
        shuffled = [index for index in shuffled if names[index] in among]
    return set(shuffled[:most])


def _hold_out(rewrites: StoragePath, most: int) -> set[str]:
    """The ids with the smallest hashes: the same problems whatever became of them, and mostly so where some are missing."""
    if not most:
        return set()
    ids = (key for batch in _batches(rewrites, ["id"]) for key in batch["id"].to_pylist())
    return set(heapq.nsmallest(most, ids, key=hash_of))


def hash_of(key: str) -> bytes:
    """What orders the ids of problems to hold out: those with the smallest hashes come first."""
    return hashlib.sha256(key.encode()).digest()


def _batches(rewrites: StoragePath, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path in parquet_files(rewrites):
        filesystem, inner = arrow(path)
        with pq.ParquetFile(inner, filesystem=filesystem, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise TrainingError(f"{path} has no column {missing[0]}; the rewrites of this run are needed there")
            yield from file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False)


@dataclass(slots=True)
class _Reading:
    """The state of one pass over the rewrites."""

    settings: TrainConfig
    drawn: set[int]
    held_out: set[str]
    read: int = 0
    long: int = 0
    left_out: int = 0
    unsolved: int = 0
    named: list[tuple[str, int]] = field(default_factory=list)
    """The first long rows by id, with their tokens."""
    sample: dict[str, list[Row]] = field(default_factory=lambda: {responses: [] for responses in RESPONSES})
    builder: ColumnBuilder = field(init=False)
    held_out_builder: ColumnBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.builder = ColumnBuilder(behavior=self._learns_with_behavior)
        self.held_out_builder = ColumnBuilder(behavior=False)

    @property
    def _learns_with_behavior(self) -> bool:
        return self.settings.responses == "kept" and self.settings.objective.needs_behavior

    @property
    def columns(self) -> list[str]:
        """Columns to read: those of the trained responses; the others', and log-probs, only where needed."""
        needed = ["id", "source", "prompt_ids", _response_column(self.settings.responses)]
        if self.drawn:
            needed += [_response_column(responses) for responses in RESPONSES]
        if self.drawn or self._learns_with_behavior:
            needed.append("behavior_logprobs")
        return list(dict.fromkeys(needed))

    def add(self, batch: pa.RecordBatch) -> None:
        rows = _Batch(batch)
        for index in range(batch.num_rows):
            if self.read + index in self.drawn:
                for responses in RESPONSES:
                    row = rows.row(index, responses, behavior=responses == "kept").cut(self.settings.max_tokens)
                    if row.source != UNSOLVED:
                        self.sample[responses].append(_copied(row))
            self._learn(rows.row(index, self.settings.responses, behavior=self._learns_with_behavior))
        self.read += batch.num_rows
        self.builder.close_batch()
        self.held_out_builder.close_batch()

    def _learn(self, row: Row) -> None:
        if row.source == UNSOLVED:
            self.unsolved += 1
            return
        weight = self.settings.source_weights.get(row.source, 1.0)
        if weight == 0:
            self.left_out += 1
            return
        if row.tokens > self.settings.max_tokens:
            self.long += 1
            self.named = heapq.nsmallest(_ROWS_NAMED, [*self.named, (row.id, row.tokens)])
            if self.settings.long_rows == "drop":
                return
            row = row.cut(self.settings.max_tokens)
        builder = self.held_out_builder if row.id in self.held_out else self.builder
        builder.add(_weighted(row, weight))

    def finish(self) -> Loaded:
        settings, rows, held_out = self.settings, self.builder.build(), self.held_out_builder.build()
        if self.long and settings.long_rows == "refuse":
            named = ", ".join(f"{name} ({tokens})" for name, tokens in self.named)
            raise TrainingError(
                f"{self.long} rows are longer than train.max_tokens={settings.max_tokens}: {named}; raise it, or set"
                " train.long_rows to cut or drop"
            )
        if not len(rows):
            raise TrainingError(
                f"no row is left to train on: {self.long} are longer than train.max_tokens={settings.max_tokens},"
                f" {self.left_out} are of sources whose train.source_weights is 0, {self.unsolved} were solved by no stage of"
                f" the rewriting, and {len(held_out)} are held out by train.held_out_rows; change one of these settings"
            )
        if settings.held_out_rows and not held_out.response_R.any():
            raise TrainingError(
                f"none of the {len(self.held_out)} problems that train.held_out_rows={settings.held_out_rows} holds out has a"
                " response to measure; raise it, or set it to 0"
            )
        pa.default_memory_pool().release_unused()
        dropped = settings.long_rows == "drop"
        counts = RowCounts(
            len(rows),
            cut=0 if dropped else self.long,
            dropped=self.long if dropped else 0,
            left_out=self.left_out,
            unsolved=self.unsolved,
            held_out=len(held_out),
        )
        sample = {responses: sorted(rows, key=lambda row: row.id) for responses, rows in self.sample.items()}
        return Loaded(rows, counts, sample if self.drawn else {}, held_out)


class _Batch:
    """The rows of a record batch, as views into it."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._ids, self._sources = batch["id"].to_pylist(), batch["source"].to_pylist()
        self._lists = {name: _Lists(batch[name]) for name in batch.schema.names if name not in {"id", "source"}}

    def row(self, index: int, responses: str, *, behavior: bool) -> Row:
        """One row with its `kept` or its `expert` response; raises TrainingError if its log-probs do not fit."""
        kept = responses == "kept"
        row = Row(
            self._ids[index],
            self._sources[index] if kept else EXPERT,
            self._lists["prompt_ids"].of(index),
            self._lists[_response_column(responses)].of(index),
            behavior=self._lists["behavior_logprobs"].of_valid(index) if behavior else None,
        )
        if row.behavior is not None:
            _check_behavior(row)
        return row


class _Lists:
    """A list column as one array of numbers and the offset of each list in it."""

    def __init__(self, column: Any) -> None:
        self._values = column.values.to_numpy(zero_copy_only=False)
        self._offsets = column.offsets.to_pylist()
        self._valid = None if column.null_count == 0 else column.is_valid().to_pylist()

    def of(self, index: int) -> np.ndarray:
        return self._values[self._offsets[index] : self._offsets[index + 1]]

    def of_valid(self, index: int) -> np.ndarray | None:
        return self.of(index) if self._valid is None or self._valid[index] else None


def _response_column(responses: str) -> str:
    return "expert_ids" if responses == "expert" else "response_ids"


def _check_behavior(row: Row) -> None:
    values = np.asarray(row.behavior)
    if len(values) != len(row.response_ids) or not np.isfinite(values).all():
        found = f"{len(values)} log-probs" if len(values) != len(row.response_ids) else "log-probs that are not finite"
        raise TrainingError(
            f"row {row.id} has {found} in behavior_logprobs for {len(row.response_ids)} response tokens; remove the"
            " row, or rewrite its problem again"
        )


def _weighted(row: Row, weight: float) -> Row:
    return Row(row.id, row.source, row.prompt_ids, row.response_ids, behavior=row.behavior, weight=weight)


def _copied(row: Row) -> Row:
    """A copy of the row, so that the batch it was read in can be freed."""
    behavior = None if row.behavior is None else np.array(row.behavior)
    return Row(row.id, row.source, np.array(row.prompt_ids), np.array(row.response_ids), behavior=behavior)
