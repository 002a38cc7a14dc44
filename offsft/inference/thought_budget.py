"""A sampler that bounds a response's thought, so that a model that thinks without end does not use up its whole response."""

import asyncio
from dataclasses import replace

from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion


class ThoughtBudget:
    """Wraps a sampler: a thought that is not closed within `thought_tokens` ends there, unfinished.

    Responses are sampled up to the budget, and only those without an open thought go on from there. That changes no
    distribution: a response that goes on has the ids and log-probs that one call would have sampled.
    """

    def __init__(self, sampler: Sampler, prompts: Prompts, thought_tokens: int) -> None:
        self._sampler = sampler
        self._prompts = prompts
        self._thought_tokens = thought_tokens

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        first = replace(params, max_tokens=min(params.max_tokens, self._thought_tokens))
        begun = await self._sampler.sample(prompt_ids, n=n, params=first)
        return list(await asyncio.gather(*(self._go_on(prompt_ids, each, params) for each in begun)))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        return await self._sampler.score(prompt_ids, response_ids)

    async def _go_on(self, prompt_ids: list[int], begun: Completion, params: SamplingParams) -> Completion:
        left = params.max_tokens - len(begun.token_ids)
        if begun.finish_reason != "length" or left < 1 or not self._prompts.parts(begun).finished:
            return begun
        so_far = [*prompt_ids, *begun.token_ids]
        (more,) = await self._sampler.sample(so_far, n=1, params=replace(params, max_tokens=left))
        ids = [*begun.token_ids, *more.token_ids]
        known = begun.logprobs is not None and more.logprobs is not None
        logprobs = [*(begun.logprobs or []), *(more.logprobs or [])] if known else None
        return Completion(self._prompts.text(ids, controls=False), ids, logprobs, more.finish_reason)


def with_thought_budget(sampler: Sampler, prompts: Prompts, thought_tokens: int | None) -> Sampler:
    """The sampler with `model.thinking_tokens`; itself if that is unset."""
    return sampler if thought_tokens is None else ThoughtBudget(sampler, prompts, thought_tokens)
