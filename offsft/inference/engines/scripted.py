"""A sampler that plays a script instead of running a model: for tests and for simulations of large runs."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from offsft.protocols import SamplingParams
from offsft.records import Completion

Script = Callable[[str, int], str]
"""Maps the prompt's text and the number of completions sampled for it so far to the next response's text."""


@dataclass
class ScriptedSampler:
    """Answers by `script`; log-probs are a function of the ids alone, so that two runs agree.

    `encode` and `decode` turn text into ids (end of turn included) and a prompt's ids into its text.
    Each answer is delayed by `delay_s` seconds.
    """

    script: Script
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    delay_s: float = 0.0
    calls: int = field(default=0, init=False)
    _sampled: dict[str, int] = field(default_factory=dict, init=False)

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        await asyncio.sleep(self.delay_s)
        self.calls += 1
        prompt = self.decode(prompt_ids)
        completions = []
        for _ in range(n):
            number = self._sampled.get(prompt, 0)
            self._sampled[prompt] = number + 1
            text = self.script(prompt, number)
            ids = self.encode(text)
            finished = len(ids) <= params.max_tokens
            ids = ids[: params.max_tokens]
            completions.append(
                Completion(text, ids, scripted_logprobs(prompt_ids, ids), "stop" if finished else "length")
            )
        return completions

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        return scripted_logprobs(prompt_ids, response_ids)


def scripted_logprobs(prompt_ids: list[int], response_ids: list[int]) -> list[float]:
    """Log-probs (nats) in (-3, 0) that depend on the prompt and the response only."""
    noise = random.Random(repr((prompt_ids, response_ids)))
    return [-3.0 * noise.random() for _ in response_ids]
