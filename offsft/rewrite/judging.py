"""Judges the samples of a wave: finished, correct, not refused by its stage, not refused by a guard.

Guards read what a hint did to a response, so they apply where the prompt was not the plain one. Scores on the plain prompt
are asked for last, and only of responses that nothing else refuses; the kept one is not scored again.
"""

from collections.abc import Callable
from dataclasses import dataclass

from offsft.config.guards import GuardConfig
from offsft.measures.row import Sample, measure_text, with_scores
from offsft.measures.spans import Decode
from offsft.prompts import Parts
from offsft.protocols import Sampler, Verdict, Verifier
from offsft.records import Attempt, Completion, Measures, Opinion, Outcome, Problem
from offsft.rewrite.guards import Refusal, refuses_scored, refuses_text


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged sample. Measures and log-probs `(T)` on the plain prompt are those that judging needed, else None."""

    completion: Completion
    attempt: Attempt
    measures: Measures | None = None
    policy_logprobs: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Judging:
    """How the samples of one wave are judged.

    `on_policy` says that they were sampled from the policy on the plain prompt, so that their log-probs are scores;
    `from_policy`, that they are samples of the policy itself, on whatever prompt.
    """

    stage: str
    problem: Problem
    verifier: Verifier
    refuses: Callable[[Completion, Problem], Outcome | None]
    policy: Sampler
    plain_ids: list[int]
    expert_ids: list[int]
    guards: GuardConfig
    split: Callable[[Completion], Parts]
    """Tells the thought of a completion from its answer, which alone is verified."""
    decode: Decode
    prompt: str
    """The prompt as text where guards apply, else empty."""
    shown: str
    hinted: bool
    """Whether the prompt was not the plain one, or another model wrote: what guards apply to."""
    on_policy: bool
    from_policy: bool
    scored: bool
    """Whether correct responses are scored for choosing among them, whatever the guards need."""

    @property
    def _guarded(self) -> bool:
        return self.hinted and self.guards.enabled

    async def judge(self, completion: Completion) -> Judged:
        """The outcome of a sample, and what was found on the way."""
        verdict, parts = Verdict(Outcome.TRUNCATED), self.split(completion)
        if completion.finished and parts.finished:
            verdict = await self.verifier(parts.answer, self.problem)
        outcome = verdict.outcome
        if outcome is Outcome.CORRECT and (self._guarded or self.scored):
            return await self._measure(completion, verdict.opinions)
        if outcome is Outcome.CORRECT:
            outcome = self.refuses(completion, self.problem) or outcome
        return Judged(completion, self._attempt(completion, (outcome, None), verdict.opinions))

    async def _measure(self, completion: Completion, opinions: tuple[Opinion, ...]) -> Judged:
        """Measure a correct response and, where guards apply, refuse it by what they find."""
        sample = Sample(completion.text, completion.token_ids, self.prompt, self.shown)
        measures, false_steps = measure_text(sample, self.problem, self.expert_ids)
        refusal = refuses_text(measures, false_steps, self.guards) if self._guarded else None
        refusal = refusal or self._refused_by_stage(completion)
        scores = None
        if refusal is None and (self.scored or self.guards.need_scores):
            scores = await self._scores(completion)
            hinted = completion.logprobs if self.hinted and self.from_policy else None
            measures = with_scores(measures, sample, self.problem, self.decode, scores, hinted)
            refusal = refuses_scored(measures, self.guards) if self._guarded else None
        return Judged(
            completion, self._attempt(completion, refusal or (Outcome.CORRECT, None), opinions), measures, scores
        )

    def _refused_by_stage(self, completion: Completion) -> Refusal | None:
        outcome = self.refuses(completion, self.problem)
        return None if outcome is None else (outcome, None)

    async def _scores(self, completion: Completion) -> list[float] | None:
        if self.on_policy and completion.logprobs is not None:
            return completion.logprobs
        return await self.policy.score(self.plain_ids, completion.token_ids)

    def _attempt(self, completion: Completion, told: Refusal, opinions: tuple[Opinion, ...]) -> Attempt:
        outcome, why = told
        return Attempt(self.stage, outcome, len(completion.token_ids), completion.text, why, opinions)
