"""A sampler that gives up on an engine which has stopped answering."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from offsft.errors import EngineError
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion

T = TypeVar("T")


class WatchedSampler:
    """Another sampler, taken for dead once `stall_s` seconds pass in which it is asked and answers nothing at all."""

    def __init__(self, sampler: Sampler, stall_s: float) -> None:
        self._sampler = sampler
        self._stall_s = stall_s
        self._asked = 0
        self._heard_s = 0.0
        self._stalled = False

    @property
    def alive(self) -> bool:
        return not self._stalled and getattr(self._sampler, "alive", True)

    def close(self) -> None:
        close = getattr(self._sampler, "close", None)
        if close is not None:
            close()

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        return await self._watched(self._sampler.sample(prompt_ids, n=n, params=params))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        return await self._watched(self._sampler.score(prompt_ids, response_ids))

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._asked:
            self._heard_s = time.monotonic()
        self._asked += 1
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                left_s = self._heard_s + self._stall_s - time.monotonic()
                if left_s <= 0:
                    self._stalled = True
                    raise EngineError(f"the engine has answered nothing for {self._stall_s:g} s (engine.stall_s)")
                await asyncio.wait({task}, timeout=left_s)
            self._heard_s = time.monotonic()
            return task.result()
        finally:
            self._asked -= 1
            task.cancel()
