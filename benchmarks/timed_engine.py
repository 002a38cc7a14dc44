"""A sampler with an engine's timing but no engine: scripted answers, with its latency and its concurrency."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

from offsft.prompts import Prompts
from offsft.protocols import SamplingParams
from offsft.records import Completion

TOKENS = 1_000
"""Tokens per answer."""
SEQUENCES = 32
"""Answers that one engine works on at once."""
TOKENS_PER_S = 10_000
"""Throughput per engine, of the order of vLLM's for a model of seven billion parameters on one H100."""
WAVE = 4
"""Samples of the one self wave and of the one guided wave."""
SAMPLES = (WAVE, 2 * WAVE, 2 * WAVE)
"""Samples for a problem by its number modulo 3: kept from self, from guided, from the expert."""
ROWS_PER_S = TOKENS_PER_S / TOKENS / (sum(SAMPLES) / len(SAMPLES))
"""Rows per second of one engine that is never idle."""

_WORKING = "We add the two numbers, and since one of them is nothing, the other one stays as it is. " * 10
_LOGPROBS = [-0.25] * TOKENS


class TimedSampler:
    """`engines` engines behind one actor; with `engines=0` answers take no time."""

    alive = True

    def __init__(self, engines: int, decode: Callable[[list[int]], str]) -> None:
        self._engines = engines
        self._decode = decode
        self._free = asyncio.Semaphore(max(1, engines * SEQUENCES))

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        prompt = self._decode(prompt_ids)
        return list(await asyncio.gather(*(self._answer(prompt) for _ in range(n))))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        return [-0.5] * len(response_ids)

    async def _answer(self, prompt: str) -> Completion:
        if self._engines:
            async with self._free:
                await asyncio.sleep(TOKENS * SEQUENCES / TOKENS_PER_S)
        return Completion(script(prompt), [65] * TOKENS, _LOGPROBS, "stop")


def script(prompt: str) -> str:
    """An answer that is right at the stage given by the problem's number; always the same."""
    found = re.search(r"What is (\d+) \+ 0", prompt)
    assert found is not None, prompt
    number = int(found[1])
    right = number % 3 == 0 or (number % 3 == 1 and "one way to work it out" in prompt)
    return f"{_WORKING}\\boxed{{{number if right else number + 1}}}"


@dataclass(frozen=True)
class Factory:
    """Makes the sampler of an actor that stands for `engines` engines."""

    engines: int

    def __call__(self, prompts: Prompts) -> TimedSampler:
        return TimedSampler(self.engines, prompts.text)
