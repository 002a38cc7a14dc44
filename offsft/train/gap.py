"""The policy gap of a sample of rows before and after training, by the training's own arithmetic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from torch import distributed

from offsft.config import TrainConfig
from offsft.data.tables import SCORE_SCHEMA
from offsft.gap import Scored, gap_by_source
from offsft.storage.paths import StoragePath, make, parquet_files, read_table, write_table
from offsft.train.batching import BatchPlan
from offsft.train.loading import RESPONSES
from offsft.train.rows import Row
from offsft.train.step import even_out, score

WHEN = ("before", "after")


@dataclass(frozen=True)
class GapSample:
    """Expert solutions and kept responses of the same rows, as one rank scores them."""

    rows: dict[str, list[Row]]
    plans: dict[str, BatchPlan]
    rank: int
    folder: StoragePath

    @classmethod
    def of(
        cls, rows: dict[str, list[Row]], settings: TrainConfig, seed: int, rank: int, ranks: int, folder: StoragePath
    ) -> "GapSample":
        """The sample of the rows that were drawn when the rewrites were read: the same on every rank."""
        plans = {
            responses: BatchPlan([row.tokens for row in each], len(each), settings.micro_batch_tokens, ranks, seed, 1)
            for responses, each in rows.items()
        }
        return cls(rows, plans, rank, folder)

    def score(self, engine: Any, when: str) -> None:
        """Score all rows and write the log-probs into the folder; existing files are kept. Collective."""
        for responses, rows in self.rows.items():
            path = self.folder / when / responses / f"rank-{self.rank}.parquet"
            plan = self.plans[responses]
            if _on_all_ranks(path.exists(), plan.ranks):
                continue
            found = score(engine, rows, even_out(plan.share(self.rank), plan.ranks))
            items = [
                {
                    "id": rows[index].id,
                    "source": rows[index].source,
                    "logprobs": logprobs,
                    "behavior": rows[index].behavior,
                }
                for index, logprobs in sorted(found, key=lambda pair: pair[0])
            ]
            make(path.parent)
            write_table(pa.Table.from_pylist(items, schema=SCORE_SCHEMA), path)


def gap_after(folder: StoragePath, sources: Sequence[str] = ()) -> dict[str, Any]:
    """The sample's gap statistics before and after training: expert solutions, and kept responses by source."""
    return {
        when: {responses: gap_by_source(_read(folder / when / responses), sources) for responses in RESPONSES}
        for when in WHEN
    }


def _read(folder: StoragePath) -> Iterator[Scored]:
    for path in parquet_files(folder):
        rows = read_table(path).to_pydict()
        yield Scored(rows["id"], rows["source"], rows["logprobs"], rows["behavior"])


def _on_all_ranks(there: bool, ranks: int) -> bool:
    """Whether `there` holds on every rank: all must take the same branch, or some would wait forever."""
    if ranks == 1:
        return there
    answers: list[Any] = [None] * ranks
    distributed.all_gather_object(answers, there)
    return all(answers)
