"""Who may come in: so many requests of a key a minute, so many sampling requests at once, so many that wait, no more."""

import asyncio
import time

from offsft.config import Limits
from services.errors import ApiError


class Rates:
    """A token bucket for each key."""

    def __init__(self, limits: Limits) -> None:
        self._a_second = limits.requests_per_minute / 60
        self._burst = limits.burst
        self._buckets: dict[str | None, tuple[float, float]] = {}

    def take(self, key: str | None) -> None:
        """Count one request of a key.

        Raises:
            ApiError: 429, with the time after which there is room again.
        """
        now_s = time.monotonic()
        left, then_s = self._buckets.get(key, (float(self._burst), now_s))
        left = min(self._burst, left + (now_s - then_s) * self._a_second)
        if left < 1:
            self._buckets[key] = (left, now_s)
            raise ApiError(
                429,
                f"this key has sent more than {self._a_second * 60:g} requests a minute",
                code="rate_limit_exceeded",
                retry_after_s=(1 - left) / self._a_second,
            )
        self._buckets[key] = (left - 1, now_s)


class Ticket:
    """The right to sample, until it is closed. `deadline_s` is in the event loop's time."""

    def __init__(self, gate: "Gate", deadline_s: float, queued_s: float) -> None:
        self.deadline_s = deadline_s
        self.queued_s = queued_s
        self._gate: Gate | None = gate

    def close(self) -> None:
        if self._gate is not None:
            self._gate.leave()
            self._gate = None


class Gate:
    """`limits.active` requests work, `limits.queued` wait in the order they came, every further one is refused at once."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.active)
        self._waiting = 0

    async def enter(self) -> Ticket:
        """Wait for a slot.

        Raises:
            ApiError: 503 with Retry-After, when as many as may are waiting already.
            TimeoutError: the request's deadline passed while it waited.
        """
        limits = self._limits
        if self._slots.locked() and self._waiting >= limits.queued:
            raise ApiError(
                503,
                f"{limits.active} requests are in work and {limits.queued} wait; try again",
                code="overloaded",
                retry_after_s=limits.retry_after_s,
            )
        came_s = asyncio.get_running_loop().time()
        deadline_s = came_s + limits.deadline_s
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._slots.acquire()
        finally:
            self._waiting -= 1
        return Ticket(self, deadline_s, asyncio.get_running_loop().time() - came_s)

    def leave(self) -> None:
        self._slots.release()
