"""The Ray Data actor around the cascade: one engine, its verifying processes, many problems at once."""

from typing import Any

import pyarrow as pa

from offsft.cascade import CascadeSettings, rewrite
from offsft.engine_actor import Done, EngineActor, EngineSpec
from offsft.records import Problem
from offsft.rewrite.measured import Measured
from offsft.rewrite.tables import REWRITE_SCHEMA, rewrite_row


class Rewrite(EngineActor):
    """`map_batches` class: batches of PROBLEM_SCHEMA in, batches of REWRITE_SCHEMA out, row for row."""

    stage = "rewrite"

    def __init__(self, spec: EngineSpec, settings: CascadeSettings) -> None:
        super().__init__(spec)
        self._settings = settings
        self._measured = Measured(spec.run)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        rows = await self.each(batch, self._row)
        self._measured.tell()
        return pa.Table.from_pylist(rows, schema=REWRITE_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        problem = Problem.from_row(row)
        done = await rewrite(
            problem, prompts=self.prompts, sampler=self.sampler, verifier=self.verifier, settings=self._settings
        )
        self._measured.add(done)
        written = rewrite_row(
            done, verifier=self.spec.verify.kind, policy=self.spec.policy, prompt_version=self.prompts.version
        )
        return written, str(done.source), done.generated_tokens
