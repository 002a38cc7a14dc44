"""Log-probs under the policy before training, computed once by the training's own arithmetic and stored."""

import json
from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import distributed

from offsft.errors import TrainingError
from offsft.storage.paths import StoragePath, arrow, make, write_bytes
from offsft.train.batching import BatchPlan
from offsft.train.columns import ColumnRows, FloatColumn, FloatFile, order_of
from offsft.train.rows import RowSource
from offsft.train.step import even_out, score

_SCHEMA = pa.schema([("id", pa.string()), ("logprobs", pa.list_(pa.float32()))])
_GROUP_ROWS = 1024
"""Rows written, and read, at once."""


def add_reference(engine: Any, rows: ColumnRows, plan: BatchPlan, rank: int, folder: StoragePath) -> ColumnRows:
    """The rows with their reference log-probs, read from `folder`, or computed by `engine` and written there.

    Call before a checkpoint is loaded: `engine` must hold the policy before training. Collective.

    Raises:
        TrainingError: the log-probs in `folder` belong to other rows, or a log-prob is not finite.
    """
    done = folder / "done.json"
    if not done.exists():
        _compute(engine, rows, plan, rank, folder)
    ranks = json.loads(done.read_text(encoding="utf-8"))["ranks"]
    return replace(rows, reference=_read(rows, [folder / f"rank-{number}.parquet" for number in range(ranks)]))


def _read(rows: ColumnRows, paths: list[StoragePath]) -> FloatColumn:
    """Copy the log-probs into a file of this process, in the order of the paths, and index them in the rows' order."""
    file, ids = FloatFile(), []
    starts, lengths = array("q"), array("q")
    for batch in _batches(paths):
        ids.append(batch["id"])
        values, offsets = batch["logprobs"].values.to_numpy(zero_copy_only=False), batch["logprobs"].offsets.to_pylist()
        for start, end in pairwise(offsets):
            starts.append(file.append(values[start:end]))
            lengths.append(end - start)
    file.done()
    every = pa.chunked_array(ids, pa.string()).combine_chunks()
    order = order_of(every)
    if not every.take(pa.array(order)).equals(rows.ids_R) or (np.asarray(lengths)[order] != rows.response_R).any():
        folder = paths[0].parent
        raise TrainingError(f"{folder} does not belong to these rows; delete it and run the same command again")
    return FloatColumn(file, np.asarray(starts)[order])


def _batches(paths: list[StoragePath]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        filesystem, inner = arrow(path)
        with pq.ParquetFile(inner, filesystem=filesystem) as file:
            yield from file.iter_batches(_GROUP_ROWS, use_threads=False)


def _compute(engine: Any, rows: RowSource, plan: BatchPlan, rank: int, folder: StoragePath) -> None:
    make(folder)
    broken = _write(engine, rows, plan, rank, folder / f"rank-{rank}.parquet")
    together: list[Any] = [broken]
    if plan.ranks > 1:
        together = [None] * plan.ranks
        distributed.all_gather_object(together, broken)
    named = sorted(name for part in together for name in part)
    if named:
        raise TrainingError(
            f"the policy before training gives log-probs that are not finite in {len(named)} rows: {', '.join(named[:5])};"
            " look at these rows and at the model's weights"
        )
    if rank == 0:
        write_bytes(folder / "done.json", json.dumps({"rows": len(rows), "ranks": plan.ranks}).encode())
    if plan.ranks > 1:
        distributed.barrier()


def _write(engine: Any, rows: RowSource, plan: BatchPlan, rank: int, path: StoragePath) -> list[str]:
    """Score this rank's share into a Parquet file, group by group; returns the ids of rows with non-finite log-probs.

    A truncated file does no harm: files count only once `done.json` is next to them.
    """
    broken: list[str] = []
    waiting: list[dict[str, Any]] = []
    filesystem, inner = arrow(path)
    with filesystem.open_output_stream(inner) as sink, pq.ParquetWriter(sink, _SCHEMA) as writer:
        for index, logprobs in score(engine, rows, even_out(plan.share(rank), plan.ranks)):
            waiting.append({"id": rows[index].id, "logprobs": logprobs})
            if not np.isfinite(logprobs).all():
                broken.append(rows[index].id)
            if len(waiting) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
                waiting = []
        writer.write_table(pa.Table.from_pylist(waiting, schema=_SCHEMA))
    return broken
