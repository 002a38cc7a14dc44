"""A sampler that gives up on an engine that has stopped answering."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from offsft.errors import EngineError
from offsft.inference.engines.base import Usage
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion
from offsft.runtime.console import span

T = TypeVar("T")
_LONG_S = 60.0
"""Time without an answer from which on it is told."""


class WatchdogSampler:
    """Wraps a sampler, and considers it dead once it has had requests for `stall_s` seconds and answered none."""

    def __init__(self, sampler: Sampler, stall_s: float) -> None:
        self._sampler = sampler
        self._stall_s = stall_s
        self._asked = 0
        self._heard_s = 0.0
        self._stalled = False
        self.answered = False
        """Whether the engine has answered any request."""

    @property
    def alive(self) -> bool:
        return not self._stalled and getattr(self._sampler, "alive", True)

    @property
    def usage(self) -> Usage | None:
        """Usage of a server that counts tokens; None for a local engine."""
        return getattr(self._sampler, "usage", None)

    def waits(self) -> str:
        """What the engine waits for: a server's trouble, or that it has answered nothing for a while; empty if nothing."""
        trouble = getattr(self._sampler, "trouble", "")
        silent_s = time.monotonic() - self._heard_s
        if trouble or not self._asked or silent_s < _LONG_S:
            return trouble
        return f"no answer from an engine for {span(silent_s)} (engine.stall_s={self._stall_s:g})"

    def close(self) -> None:
        close = getattr(self._sampler, "close", None)
        if close is not None:
            close()

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        return await self._watch(self._sampler.sample(prompt_ids, n=n, params=params))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        return await self._watch(self._sampler.score(prompt_ids, response_ids))

    async def _watch(self, work: Coroutine[Any, Any, T]) -> T:
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
            answer = task.result()
            self.answered = True
            return answer
        finally:
            self._asked -= 1
            task.cancel()
