"""The actor that answers an evaluation's problems and judges the answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from offsft.config import PromptStyle, VerifyConfig
from offsft.data.suites import HELD_OUT
from offsft.data.tables import EVALUATION_SCHEMA, opinion_rows
from offsft.evaluate.drift import ScoredSample, sample_reference, score_reference
from offsft.inference.actor import Done, EngineActor
from offsft.inference.spec import EngineSpec
from offsft.inference.verifier import VerifierWithMetrics
from offsft.prompts import Parts
from offsft.protocols import SamplingParams, Verifier
from offsft.records import Completion, Outcome, Problem
from offsft.runtime import metrics
from offsft.verify import open_verifier


@dataclass(frozen=True, slots=True)
class Asking:
    """How the problems of one suite are asked and judged."""

    style: PromptStyle
    verify: VerifyConfig


@dataclass(frozen=True, slots=True)
class Draw:
    """Number of samples per problem and how they are drawn; `greedy` adds one greedy answer."""

    params: SamplingParams
    samples: int
    greedy: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """The problems on which the KL divergence from the first model is measured.

    `references` are its samples by problem, None for the first model itself, which draws them.
    """

    problems: frozenset[str] = frozenset()
    references: Mapping[str, ScoredSample] | None = None


class EvaluationActor(EngineActor):
    """`map_batches` class: batches of SUITE_SCHEMA or PROBLEM_SCHEMA in, of EVALUATION_SCHEMA out, row by row."""

    stage = "evaluate"

    def __init__(self, spec: EngineSpec, draw: Draw, asking: Mapping[str, Asking], drift: Drift) -> None:
        super().__init__(spec)
        self._draw = draw
        self._asking = asking
        self._drift = drift
        self._verifiers: dict[str, Any] = {spec.verify.model_dump_json(): self.verifier}
        for each in asking.values():
            if each.verify.model_dump_json() not in self._verifiers:
                self._verifiers[each.verify.model_dump_json()] = VerifierWithMetrics(
                    open_verifier(each.verify), spec.run
                )

    def __del__(self) -> None:
        super().__del__()
        for verifier in getattr(self, "_verifiers", {}).values():
            verifier.close()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(await self.map_rows(batch, self._row), schema=EVALUATION_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        problem = Problem.from_row(row)
        suite = row.get("suite") or HELD_OUT
        asking = self._asking[suite]
        prompt, verifier = (
            self.prompts.with_style(asking.style, problem),
            self._verifiers[asking.verify.model_dump_json()],
        )
        completions = await self.policy.sample(prompt, n=self._draw.samples, params=self._draw.params)
        greedy: list[Completion] = []
        if self._draw.greedy:
            greedy = await self.policy.sample(prompt, n=1, params=SamplingParams(self._draw.params.max_tokens, 0.0))
        answers = [*completions, *greedy]
        judged = await asyncio.gather(*(_judge(each, self.prompts.parts(each), problem, verifier) for each in answers))
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
            "drift": await self._measure_drift(problem.id, prompt, completions),
        }
        return answered, kind, sum(sample["tokens"] for sample in judged)

    async def _measure_drift(self, problem: str, prompt: list[int], drawn: list[Completion]) -> dict[str, Any] | None:
        if problem not in self._drift.problems:
            return None
        if self._drift.references is None:
            sample = await sample_reference(self.sampler, prompt, self._draw.params, drawn)
        else:
            sample = await score_reference(self.sampler, prompt, self._drift.references.get(problem))
        return None if sample is None else sample.as_row()


async def _judge(completion: Completion, parts: Parts, problem: Problem, verifier: Verifier) -> dict[str, Any]:
    sample = {"response": completion.text, "tokens": len(completion.token_ids)}
    if not completion.finished or not parts.finished:
        return sample | {"outcome": str(Outcome.TRUNCATED), "extracted": None, "opinions": None}
    verdict = await verifier(parts.answer, problem)
    return sample | {
        "outcome": str(verdict.outcome),
        "extracted": verdict.extracted,
        "opinions": opinion_rows(verdict.opinions),
    }
