"""Log-probs of the policy before training, computed once by the training's own arithmetic and kept."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from torch import distributed

from offsft.batching import Plan
from offsft.errors import TrainingError
from offsft.train.rows import Row
from offsft.train.step import score

_SCHEMA = pa.schema([("id", pa.string()), ("logprobs", pa.list_(pa.float32()))])


def with_reference(engine: Any, rows: Sequence[Row], plan: Plan, rank: int, folder: Path) -> list[Row]:
    """The rows with their reference log-probs, read from `folder`, or computed by `engine` and left there.

    Call before a checkpoint is loaded: `engine` must hold the policy before training. Collective.
    """
    if not (folder / "done.json").exists():
        _compute(engine, rows, plan, rank, folder)
    table = pyarrow.dataset.dataset(sorted(map(str, folder.glob("rank-*.parquet"))), format="parquet").to_table()
    known = dict(zip(table["id"].to_pylist(), table["logprobs"].to_pylist(), strict=True))
    if [len(known.get(row.id, ())) for row in rows] != [len(row.response_ids) for row in rows]:
        raise TrainingError(f"{folder} does not belong to these rows; delete it and run the same command again")
    return [replace(row, reference=known[row.id]) for row in rows]


def _compute(engine: Any, rows: Sequence[Row], plan: Plan, rank: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = score(engine, rows, plan.everything(rank))
    table = pa.Table.from_pylist(
        [{"id": rows[index].id, "logprobs": logprobs} for index, logprobs in sorted(found.items())], schema=_SCHEMA
    )
    pyarrow.parquet.write_table(table, folder / f"rank-{rank}.parquet")
    if plan.ranks > 1:
        distributed.barrier()
    if rank == 0:
        (folder / "done.json").write_text(json.dumps({"rows": len(rows), "ranks": plan.ranks}))
    if plan.ranks > 1:
        distributed.barrier()
