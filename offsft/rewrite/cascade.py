"""The cascade: each stage in the recipe's order until one gives a response; by default self, guided, expert.

Pure and asynchronous, over the Sampler and Verifier protocols: the batch job and the HTTP rewriter run this same code.
Method: arXiv 2509.15157.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from offsft import config
from offsft.config.guards import GuardConfig
from offsft.config.stages import StageConfig, WavesConfig
from offsft.measures.row import Sample, against_own, measure_text, with_scores
from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams, Verifier
from offsft.records import UNSOLVED, Measures, Problem, Rewrite
from offsft.rewrite.picking import Pick
from offsft.rewrite.stages.base import Kept, Observer, Stage, Task


@dataclass(frozen=True, slots=True)
class CascadeSettings:
    """The stages in order and their sampling settings; see `offsft.config.RewriteConfig`."""

    stages: tuple[StageConfig, ...]
    sampling: SamplingParams
    context_tokens: int
    pick: Pick = "random"
    guards: GuardConfig = field(default_factory=GuardConfig)
    give_up: float = 0.0
    keep_text: bool = True


def cascade_settings(rewrite: config.RewriteConfig, context_tokens: int) -> CascadeSettings:
    """A recipe's cascade settings; `context_tokens` is its `model.context_tokens`."""
    return CascadeSettings(
        stages=tuple(rewrite.stages),
        sampling=SamplingParams(rewrite.max_tokens, rewrite.temperature, rewrite.top_p),
        context_tokens=context_tokens,
        pick=rewrite.pick,
        guards=rewrite.guards,
        give_up=rewrite.give_up,
        keep_text=rewrite.keep_text,
    )


async def rewrite(
    problem: Problem,
    *,
    prompts: Prompts,
    stages: Mapping[str, Stage[Any]],
    sampler: Sampler,
    verifier: Verifier,
    settings: CascadeSettings,
    observer: Observer | None = None,
) -> Rewrite:
    """Run one problem through the stages of `settings`, opened in `stages`, and score the kept response.

    The prompt and the expert response must fit into `settings.context_tokens` together; the intake ensures that.
    """
    task = Task(
        problem=problem,
        plain_ids=prompts.plain(problem),
        expert_ids=prompts.response(problem.solution),
        policy=sampler,
        verifier=verifier,
        sampling=settings.sampling,
        context_tokens=settings.context_tokens,
        pick=settings.pick,
        guards=settings.guards,
        give_up=settings.give_up,
        decode=prompts.text,
        observer=observer,
    )
    # The expert response is known already: scored beside the sampling, it takes no time of its own at the end.
    expert = asyncio.ensure_future(sampler.score(task.plain_ids, task.expert_ids))
    try:
        source, kept = await _solve(task, stages, settings.stages)
        done = await _scored(source, kept or Kept("", [], None), task, expert, settings.keep_text)
    finally:
        expert.cancel()
        await asyncio.gather(expert, return_exceptions=True)
    for stage in stages.values():
        stage.finished(done)
    return done


async def _solve(
    task: Task, stages: Mapping[str, Stage[Any]], settings: tuple[StageConfig, ...]
) -> tuple[str, Kept | None]:
    """The first stage with a response, and that response."""
    for each in settings:
        kept = await stages[each.name].solve(task, each.waves if isinstance(each, WavesConfig) else ())
        if kept is not None:
            return each.name, kept
    return UNSOLVED, None


async def _scored(
    source: str, kept: Kept, task: Task, expert: asyncio.Future[list[float] | None], keep_text: bool
) -> Rewrite:
    """The problem's result, with the policy's log-probs of the kept response and of the expert response."""
    problem, attempts = task.problem, task.attempts
    policy_logprobs, expert_logprobs = await _score(kept, task, expert)
    return Rewrite(
        id=problem.id,
        problem=problem.problem,
        answer=problem.answer,
        solution=problem.solution,
        source=source,
        response=kept.text,
        prompt_ids=task.plain_ids,
        response_ids=kept.ids,
        behavior_logprobs=kept.logprobs,
        policy_logprobs=policy_logprobs,
        expert_ids=task.expert_ids,
        expert_logprobs=expert_logprobs,
        expert_mean_logprob=None if expert_logprobs is None else math.fsum(expert_logprobs) / len(expert_logprobs),
        attempts=attempts if keep_text else [replace(attempt, text=None) for attempt in attempts],
        generated_tokens=sum(attempt.tokens for attempt in attempts),
        measures=_measure(kept, task, policy_logprobs) if kept.ids else None,
        details=kept.details,
    )


def _measure(kept: Kept, task: Task, policy_logprobs: list[float] | None) -> Measures:
    """The measures of the kept response; judging has found most of them where it had guards to apply."""
    found, sample = kept.measures, Sample(kept.text, kept.ids)
    if found is None:
        found, _ = measure_text(sample, task.problem, task.expert_ids)
    if kept.policy_logprobs is None:
        found = with_scores(found, sample, task.problem, task.decode, policy_logprobs)
    return against_own(found, kept.ids, [(attempt.text or "", attempt.tokens) for attempt in task.own])


async def _score(
    kept: Kept, task: Task, expert: asyncio.Future[list[float] | None]
) -> tuple[list[float] | None, list[float] | None]:
    """Log-probs (nats) of the kept and the expert response under the policy on the plain prompt.

    None if the engine cannot score.
    """
    if kept.on_policy and kept.logprobs is not None:
        return kept.logprobs, await expert
    if kept.policy_logprobs is not None:
        return kept.policy_logprobs, await expert
    if not kept.ids:
        return [], await expert
    if kept.ids == task.expert_ids:
        logprobs = await expert
        return logprobs, logprobs
    policy, expert_logprobs = await asyncio.gather(task.policy.score(task.plain_ids, kept.ids), expert)
    return policy, expert_logprobs
