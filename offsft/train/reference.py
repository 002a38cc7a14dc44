"""Log-probs of the policy before training, computed once by the training's own arithmetic and kept."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from torch import distributed

from offsft.batching import Plan
from offsft.errors import TrainingError
from offsft.storage import StoragePath, make, parquet_files, read_table, write_bytes, write_table
from offsft.train.rows import Row
from offsft.train.step import score

_SCHEMA = pa.schema([("id", pa.string()), ("logprobs", pa.list_(pa.float32()))])


def with_reference(engine: Any, rows: Sequence[Row], plan: Plan, rank: int, folder: StoragePath) -> list[Row]:
    """The rows with their reference log-probs, read from `folder`, or computed by `engine` and left there.

    Call before a checkpoint is loaded: `engine` must hold the policy before training. Collective.
    """
    if not (folder / "done.json").exists():
        _compute(engine, rows, plan, rank, folder)
    table = pa.concat_tables(read_table(path) for path in parquet_files(folder))
    known = dict(zip(table["id"].to_pylist(), table["logprobs"].to_pylist(), strict=True))
    if [len(known.get(row.id, ())) for row in rows] != [len(row.response_ids) for row in rows]:
        raise TrainingError(f"{folder} does not belong to these rows; delete it and run the same command again")
    return [replace(row, reference=known[row.id]) for row in rows]


def _compute(engine: Any, rows: Sequence[Row], plan: Plan, rank: int, folder: StoragePath) -> None:
    make(folder)
    found = score(engine, rows, plan.everything(rank))
    table = pa.Table.from_pylist(
        [{"id": rows[index].id, "logprobs": logprobs} for index, logprobs in sorted(found.items())], schema=_SCHEMA
    )
    write_table(table, folder / f"rank-{rank}.parquet")
    if plan.ranks > 1:
        distributed.barrier()
    if rank == 0:
        write_bytes(folder / "done.json", json.dumps({"rows": len(rows), "ranks": plan.ranks}).encode())
    if plan.ranks > 1:
        distributed.barrier()
