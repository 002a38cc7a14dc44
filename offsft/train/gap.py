"""The policy gap of a sample of rows before and after training, by the training's own arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from torch import distributed

from offsft.batching import Plan
from offsft.config import Train
from offsft.gap import Scored, gap_by_source
from offsft.storage import StoragePath, make, parquet_files, read_table, write_table
from offsft.train.rows import Row, load_rows
from offsft.train.step import score

RESPONSES = ("expert", "kept")
WHEN = ("before", "after")
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("logprobs", pa.list_(pa.float32())),
        ("behavior", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True)
class GapSample:
    """The same rows' expert solutions and kept responses, on one rank."""

    rows: dict[str, list[Row]]
    plans: dict[str, Plan]
    rank: int
    folder: StoragePath

    @classmethod
    def draw(
        cls, rewrites: StoragePath, settings: Train, seed: int, rank: int, ranks: int, folder: StoragePath
    ) -> "GapSample":
        """Draw `settings.gap_rows` rows by the seed: the same on every rank."""
        chosen: dict[str, list[Row]] = {}
        for responses in RESPONSES:
            every = {"responses": responses, "source_weights": {}, "long_rows": "cut"}
            rows = load_rows(rewrites, Train.model_validate(settings.model_dump() | every)).rows
            most = min(settings.gap_rows, len(rows))
            indices = np.random.default_rng(seed).permutation(len(rows))[:most]
            chosen[responses] = [rows[i] for i in sorted(indices)]
        plans = {
            responses: Plan([row.tokens for row in rows], len(rows), settings.micro_batch_tokens, ranks, seed, 1)
            for responses, rows in chosen.items()
        }
        return cls(chosen, plans, rank, folder)

    def score(self, engine: Any, when: str) -> None:
        """Score all and leave the log-probs in the folder; what is there already is kept. Collective."""
        for responses, rows in self.rows.items():
            path = self.folder / when / responses / f"rank-{self.rank}.parquet"
            plan = self.plans[responses]
            if _on_all_ranks(path.exists(), plan.ranks):
                continue
            found = score(engine, rows, plan.everything(self.rank))
            items = [
                {
                    "id": rows[index].id,
                    "source": rows[index].source,
                    "logprobs": logprobs,
                    "behavior": rows[index].behavior,
                }
                for index, logprobs in sorted(found.items())
            ]
            make(path.parent)
            write_table(pa.Table.from_pylist(items, schema=_SCHEMA), path)


def gap_after(folder: StoragePath) -> dict[str, Any]:
    """Statistics of the sample, before and after training, of expert solutions and of kept responses by source."""
    return {
        when: {responses: gap_by_source(_read(folder / when / responses)) for responses in RESPONSES} for when in WHEN
    }


def _read(folder: StoragePath) -> Iterator[Scored]:
    for path in parquet_files(folder):
        rows = read_table(path).to_pydict()
        yield Scored(rows["id"], rows["source"], rows["logprobs"], rows["behavior"])


def _on_all_ranks(there: bool, ranks: int) -> bool:
    """Whether something holds on every rank: all must take the same way, or some wait for ever."""
    if ranks == 1:
        return there
    answers: list[Any] = [None] * ranks
    distributed.all_gather_object(answers, there)
    return all(answers)
