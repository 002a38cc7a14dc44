"""The actor that answers and judges problems of an evaluation."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from offsft import metrics
from offsft.config import PromptStyle, Verify
from offsft.engine_actor import Done, EngineActor, EngineSpec
from offsft.evaluate.suites import HELD_OUT
from offsft.metered import MeteredVerifier
from offsft.protocols import SamplingParams, Verifier
from offsft.records import Completion, Outcome, Problem
from offsft.rewrite.tables import EVALUATION_SCHEMA
from offsft.verify import open_verifier


@dataclass(frozen=True, slots=True)
class Asking:
    """How the problems of one suite are asked and judged."""

    style: PromptStyle
    verify: Verify


@dataclass(frozen=True, slots=True)
class Draw:
    """How many samples a problem gets and how they are drawn; `greedy` is one answer more beside them."""

    params: SamplingParams
    samples: int
    greedy: bool


class Answer(EngineActor):
    """`map_batches` class: batches of SUITE_SCHEMA, or of PROBLEM_SCHEMA, in, batches of EVALUATION_SCHEMA out, row for row."""

    stage = "evaluate"

    def __init__(self, spec: EngineSpec, draw: Draw, asking: Mapping[str, Asking]) -> None:
        super().__init__(spec)
        self._draw = draw
        self._asking = asking
        self._verifiers: dict[str, Any] = {spec.verify.model_dump_json(): self.verifier}
        for each in asking.values():
            if each.verify.model_dump_json() not in self._verifiers:
                self._verifiers[each.verify.model_dump_json()] = MeteredVerifier(open_verifier(each.verify), spec.run)

    def __del__(self) -> None:
        super().__del__()
        for verifier in getattr(self, "_verifiers", {}).values():
            verifier.close()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(await self.each(batch, self._row), schema=EVALUATION_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        problem = Problem.from_row(row)
        suite = row.get("suite", HELD_OUT)
        asking = self._asking[suite]
        prompt, verifier = self.prompts.styled(asking.style, problem), self._verifiers[asking.verify.model_dump_json()]
        completions = await self.sampler.sample(prompt, n=self._draw.samples, params=self._draw.params)
        greedy: list[Completion] = []
        if self._draw.greedy:
            greedy = await self.sampler.sample(prompt, n=1, params=SamplingParams(self._draw.params.max_tokens, 0.0))
        judged = await asyncio.gather(*(_judged(each, problem, verifier) for each in [*completions, *greedy]))
        samples = judged[: len(completions)]
        for sample in samples:
            metrics.EVALUATED_SAMPLES.add(run=self.spec.run, model=self.spec.policy, outcome=sample["outcome"])
        correct = sum(sample["outcome"] == Outcome.CORRECT for sample in samples)
        kind = "correct" if correct * 2 > len(samples) else "wrong"
        answered = {
            "id": problem.id,
            "suite": suite,
            "problem": problem.problem,
            "answer": problem.answer,
            "samples": samples,
            "greedy": judged[len(completions) :],
        }
        return answered, kind, sum(sample["tokens"] for sample in judged)


async def _judged(completion: Completion, problem: Problem, verifier: Verifier) -> dict[str, Any]:
    sample = {"response": completion.text, "tokens": len(completion.token_ids)}
    if not completion.finished:
        return sample | {"outcome": str(Outcome.TRUNCATED), "extracted": None}
    verdict = await verifier(completion.text, problem)
    return sample | {"outcome": str(verdict.outcome), "extracted": verdict.extracted}
