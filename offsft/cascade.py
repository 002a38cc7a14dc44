"""The cascade: the model's own solution where one is correct, else a guided one, else the expert's.

Pure and asynchronous, over the Sampler and Verifier protocols: the batch job, the evaluation and the HTTP rewriter
run this same code. Method: arXiv 2509.15157.
"""

import asyncio
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from offsft import config
from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams, Verifier
from offsft.records import Attempt, Completion, Outcome, Problem, Rewrite, Source

Pick = Literal["random", "shortest", "most_likely"]

_LEAK = re.compile(
    r"\b(?:reference|provided|given|shown|expert|above|original|suggested)(?:'s)?\s+"
    r"(?:solution|approach|method|explanation)\b"
    r"|\b(?:solution|approach|method|explanation)\s+(?:(?:that|which)\s+)?(?:(?:was|is|were)\s+)?"
    r"(?:shown|provided|given|presented|outlined)\b"
    r"|\bone way to work it out\b|\bin (?:my|your|our) own words\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CascadeSettings:
    """How the cascade samples; see `offsft.config.Rewrite`."""

    self_waves: tuple[int, ...]
    guided_waves: tuple[int, ...]
    sampling: SamplingParams
    context_tokens: int
    guided_min_share: float = 0.0
    pick: Pick = "random"
    keep_text: bool = True

    @property
    def on_policy(self) -> bool:
        """Whether the sampling distribution is the policy itself, so that as-sampled log-probs are the policy's."""
        return self.sampling.temperature == 1.0 and self.sampling.top_p == 1.0


def cascade_settings(rewrite: config.Rewrite, context_tokens: int) -> CascadeSettings:
    """A recipe's settings of the cascade; `context_tokens` is its `model.context_tokens`."""
    return CascadeSettings(
        self_waves=tuple(rewrite.self_waves),
        guided_waves=tuple(rewrite.guided_waves),
        sampling=SamplingParams(rewrite.max_tokens, rewrite.temperature, rewrite.top_p),
        context_tokens=context_tokens,
        guided_min_share=rewrite.guided_min_share,
        pick=rewrite.pick,
        keep_text=rewrite.keep_text,
    )


class Observer(Protocol):
    """Told what the cascade does while it does it."""

    def wave(self, stage: Source, n: int) -> None:
        """`n` samples of a stage are asked for."""
        ...

    def attempt(self, attempt: Attempt) -> None:
        """A sample was judged; `attempt` has its text."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    """A response chosen for a problem. `logprobs` as sampled; None for the expert's."""

    source: Source
    text: str
    ids: list[int]
    logprobs: list[float] | None


def speaks_of_reference(text: str) -> bool:
    """Whether a guided response speaks of the solution that it was shown, and so does not stand alone."""
    return _LEAK.search(text) is not None


async def rewrite(
    problem: Problem,
    *,
    prompts: Prompts,
    sampler: Sampler,
    verifier: Verifier,
    settings: CascadeSettings,
    observer: Observer | None = None,
) -> Rewrite:
    """Take one problem through self, guided and expert, and score what was kept.

    The prompt and the expert's response must fit into `settings.context_tokens` together; the intake sees to that.
    """
    prompt_ids = prompts.plain(problem)
    expert_ids = prompts.response(problem.solution)
    attempts: list[Attempt] = []
    stages = (
        (Source.SELF, settings.self_waves, prompt_ids, 0.0),
        (
            Source.GUIDED,
            settings.guided_waves,
            prompts.guided(problem) if settings.guided_waves else [],
            settings.guided_min_share * len(expert_ids),
        ),
    )
    kept: _Kept | None = None
    for stage, waves, ids, least_tokens in stages:
        if kept is None and waves:
            kept = await _stage(
                stage, waves, ids, least_tokens, problem, sampler, verifier, settings, observer, attempts
            )
    if kept is None:
        kept = _Kept(Source.EXPERT, problem.solution, expert_ids, None)
    policy_logprobs, expert_logprobs = await _score(kept, prompt_ids, expert_ids, sampler, settings)
    return Rewrite(
        id=problem.id,
        problem=problem.problem,
        answer=problem.answer,
        solution=problem.solution,
        source=kept.source,
        response=kept.text,
        prompt_ids=prompt_ids,
        response_ids=kept.ids,
        behavior_logprobs=kept.logprobs,
        policy_logprobs=policy_logprobs,
        expert_ids=expert_ids,
        expert_logprobs=expert_logprobs,
        expert_mean_logprob=math.fsum(expert_logprobs) / len(expert_logprobs),
        attempts=attempts,
        generated_tokens=sum(attempt.tokens for attempt in attempts),
    )


async def _stage(
    stage: Source,
    waves: Sequence[int],
    ids: list[int],
    least_tokens: float,
    problem: Problem,
    sampler: Sampler,
    verifier: Verifier,
    settings: CascadeSettings,
    observer: Observer | None,
    attempts: list[Attempt],
) -> _Kept | None:
    """Sample wave after wave until one holds a correct response; every attempt is appended to `attempts`."""
    room = settings.context_tokens - len(ids)
    if room < 1:
        too_long = Attempt(stage, Outcome.TOO_LONG, 0)
        attempts.append(too_long)
        if observer is not None:
            observer.attempt(too_long)
        return None
    sampling = SamplingParams(
        max_tokens=min(settings.sampling.max_tokens, room),
        temperature=settings.sampling.temperature,
        top_p=settings.sampling.top_p,
    )
    for number, n in enumerate(waves):
        if observer is not None:
            observer.wave(stage, n)
        completions = await sampler.sample(ids, n=n, params=sampling)
        outcomes = await asyncio.gather(
            *(_judge(c, stage, least_tokens, problem, verifier, observer) for c in completions)
        )
        for completion, outcome in zip(completions, outcomes, strict=True):
            text = completion.text if settings.keep_text else None
            attempts.append(Attempt(stage, outcome, len(completion.token_ids), text))
        correct = [c for c, outcome in zip(completions, outcomes, strict=True) if outcome is Outcome.CORRECT]
        if correct:
            chosen = _choose(correct, settings.pick, seed=f"{problem.id}/{stage}/{number}")
            return _Kept(stage, chosen.text, chosen.token_ids, chosen.logprobs)
    return None


async def _judge(
    completion: Completion,
    stage: Source,
    least_tokens: float,
    problem: Problem,
    verifier: Verifier,
    observer: Observer | None,
) -> Outcome:
    outcome = await _outcome(completion, stage, least_tokens, problem, verifier)
    if observer is not None:
        observer.attempt(Attempt(stage, outcome, len(completion.token_ids), completion.text))
    return outcome


async def _outcome(
    completion: Completion, stage: Source, least_tokens: float, problem: Problem, verifier: Verifier
) -> Outcome:
    if not completion.finished:
        return Outcome.TRUNCATED
    verdict = await verifier(completion.text, problem)
    if verdict.outcome is Outcome.CORRECT and stage is Source.GUIDED and speaks_of_reference(completion.text):
        return Outcome.LEAKED
    if verdict.outcome is Outcome.CORRECT and len(completion.token_ids) < least_tokens:
        return Outcome.BARE
    return verdict.outcome


def _choose(correct: list[Completion], pick: Pick, seed: str) -> Completion:
    match pick:
        case "shortest":
            return min(correct, key=lambda c: len(c.token_ids))
        case "most_likely":
            return max(correct, key=lambda c: math.fsum(c.logprobs))
        case "random":
            return random.Random(seed).choice(correct)


async def _score(
    kept: _Kept, prompt_ids: list[int], expert_ids: list[int], sampler: Sampler, settings: CascadeSettings
) -> tuple[list[float], list[float]]:
    """Log-probs (nats) of the kept and of the expert's response under the policy on the plain prompt."""
    expert = asyncio.ensure_future(sampler.score(prompt_ids, expert_ids))
    if kept.source is Source.EXPERT:
        logprobs = await expert
        return logprobs, logprobs
    if kept.source is Source.SELF and kept.logprobs is not None and settings.on_policy:
        return kept.logprobs, await expert
    policy, expert_logprobs = await asyncio.gather(sampler.score(prompt_ids, kept.ids), expert)
    return policy, expert_logprobs
