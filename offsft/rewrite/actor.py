"""The Ray Data actor around the cascade: one engine, its verifier processes, and many problems at once."""

from typing import Any

import pyarrow as pa

from offsft.data.tables import REWRITE_SCHEMA, rewrite_row
from offsft.inference.actor import Done, EngineActor
from offsft.inference.spec import EngineSpec
from offsft.records import Problem
from offsft.rewrite.cascade import CascadeSettings, rewrite
from offsft.rewrite.metrics import RewriteMetrics
from offsft.rewrite.solved import SolvedProblems
from offsft.rewrite.stages import open_stages
from offsft.storage.paths import at


class RewriteActor(EngineActor):
    """`map_batches` class: batches of PROBLEM_SCHEMA in, batches of REWRITE_SCHEMA out, row for row."""

    stage = "rewrite"

    def __init__(self, spec: EngineSpec, settings: CascadeSettings, rewrites: str) -> None:
        """`rewrites` is the folder of the run's committed rewrites."""
        super().__init__(spec)
        self._settings = settings
        self._stages = open_stages(settings.stages, self.prompts, SolvedProblems(at(rewrites)))
        self._metrics = RewriteMetrics(spec.run)

    def __del__(self) -> None:
        for stage in getattr(self, "_stages", {}).values():
            stage.close()
        super().__del__()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = await self.map_rows(batch, self._row)
        self._metrics.record()
        return pa.Table.from_pylist(rows, schema=REWRITE_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        problem = Problem.from_row(row)
        done = await rewrite(
            problem,
            prompts=self.prompts,
            stages=self._stages,
            sampler=self.policy,
            verifier=self.verifier,
            settings=self._settings,
        )
        self._metrics.add(done)
        written = rewrite_row(
            done, verifier=self.spec.verify.label, policy=self.spec.policy, prompt_version=self.prompts.version
        )
        return written, done.source, done.generated_tokens
