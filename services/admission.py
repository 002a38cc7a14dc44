"""Admission control: a rate limit per key, and a fair queue of the sampling requests of each model.

Places are sequences in work on a model's engine: a request of eight samples takes eight. Each model has its own places
and its own queue, since each has its own engine. Among the keys that wait for a model, the one that has had least of it
for its weight is next (start-time fair queueing), and no key holds more than its share, so that another never waits for
a whole batch to end. When the queue is full, the key that waits with most gives way.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Mapping

from offsft.runtime.metrics import QUEUE_SECONDS, REQUESTS_WAITING, SEQUENCES_IN_WORK

from .errors import ApiError
from .settings import Limits


class Rates:
    """Rate limits: one token bucket per key."""

    def __init__(self, limits: Limits) -> None:
        self._a_second = limits.requests_per_minute / 60
        self._burst = limits.burst
        self._buckets: dict[str | None, tuple[float, float]] = {}

    def take(self, key: str | None) -> None:
        """Count one request against a key's rate limit.

        Raises:
            ApiError: 429, with the time after which the key may send again.
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
    """Places at a model, held until it is closed. `deadline_s` is in the event loop's time."""

    def __init__(self, places: "_Places", flow: "_Flow", held: int, deadline_s: float, queued_s: float) -> None:
        self.deadline_s = deadline_s
        self.queued_s = queued_s
        self._places: _Places | None = places
        self._flow = flow
        self._held = held

    def close(self) -> None:
        if self._places is not None:
            self._places.give_back(self._flow, self._held)
            self._places = None


class Gate:
    """The places and the queue of each model: `limits.active` sequences run, `limits.queued` requests wait."""

    def __init__(self, limits: Limits, weights: Mapping[str, float] | None = None) -> None:
        self._limits = limits
        self._weights = weights or {}
        self._models: dict[str, _Places] = {}

    async def enter(
        self, key: str | None = None, model: str = "", *, sequences: int = 1, tokens: int = 1, priority: int = 0
    ) -> Ticket:
        """Wait for places.

        Args:
            key: whose request it is.
            model: the model that it needs.
            sequences: how many places it takes; at most all that a key may hold.
            tokens: what it costs, which decides whose turn is next.
            priority: its place among the waiting requests of the same key, the lowest first.

        Raises:
            ApiError: 503 with Retry-After, when the queue is full, or another key's request came before it.
            TimeoutError: the request's deadline passed while it waited.
        """
        places = self._models.setdefault(model, _Places(self._limits, model))
        flow = places.flow(key, self._weights.get(key or "", 1.0))
        loop = asyncio.get_running_loop()
        came_s = loop.time()
        deadline_s = came_s + self._limits.deadline_s
        held = min(sequences, flow.most)
        turn = places.ask(flow, held, tokens, priority)
        try:
            async with asyncio.timeout_at(deadline_s):
                await turn
        except BaseException:
            places.leave(flow, turn, held)
            raise
        queued_s = loop.time() - came_s
        QUEUE_SECONDS.observe(queued_s, key=key or "", model=model)
        return Ticket(places, flow, held, deadline_s, queued_s)

    @property
    def running(self) -> int:
        """Sequences in work, of all models."""
        return sum(places.running for places in self._models.values())

    @property
    def waiting(self) -> int:
        """Requests that wait, for all models."""
        return sum(places.waiting for places in self._models.values())


class _Flow:
    """The requests of one key at one model."""

    def __init__(self, weight: float, most: int) -> None:
        self.weight = weight
        self.most = most
        """The most places that it may hold."""
        self.running = 0
        self.start = 0.0
        """Virtual time at which its next request begins: what it has had, over its weight."""
        self.waiting: list[tuple[int, int, int, int, asyncio.Future[None]]] = []
        """A heap of (priority, number, places, tokens, turn)."""


class _Places:
    """The places of one model."""

    def __init__(self, limits: Limits, model: str) -> None:
        self._limits = limits
        self._model = model
        self._flows: dict[str | None, _Flow] = {}
        self._numbers = itertools.count()
        self._now = 0.0
        """Virtual time: where the request stands that came in last."""
        self.running = 0

    @property
    def waiting(self) -> int:
        return sum(len(flow.waiting) for flow in self._flows.values())

    def flow(self, key: str | None, weight: float) -> _Flow:
        """A key's requests. Without a key nobody can be told from another, so one may hold all places."""
        if key not in self._flows:
            share = 1.0 if key is None else self._limits.key_share
            self._flows[key] = _Flow(weight, max(1, int(self._limits.active * share)))
        return self._flows[key]

    def ask(self, flow: _Flow, held: int, tokens: int, priority: int) -> asyncio.Future[None]:
        """Queue a request; the result is done when it has its places, which may be at once."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not flow.waiting:
            flow.start = max(flow.start, self._now)
        heapq.heappush(flow.waiting, (priority, next(self._numbers), held, tokens, turn))
        self._admit()
        if not turn.done() and self.waiting > self._limits.queued:
            self._turn_away(flow)
        return turn

    def leave(self, flow: _Flow, turn: asyncio.Future[None], held: int) -> None:
        """Forget a request that waits no longer, or give back what it has just been given."""
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self.give_back(flow, held)
            return
        flow.waiting = [entry for entry in flow.waiting if entry[-1] is not turn]
        heapq.heapify(flow.waiting)
        self._admit()

    def give_back(self, flow: _Flow, held: int) -> None:
        flow.running -= held
        self.running -= held
        self._admit()

    def _admit(self) -> None:
        self._let_in()
        SEQUENCES_IN_WORK.set(self.running, model=self._model)
        REQUESTS_WAITING.set(self.waiting, model=self._model)

    def _let_in(self) -> None:
        while True:
            ready = [f for f in self._flows.values() if f.waiting and f.running + f.waiting[0][2] <= f.most]
            if not ready:
                return
            flow = min(ready, key=lambda each: each.start)
            _, _, held, tokens, turn = flow.waiting[0]
            # Who is next waits for enough places; smaller requests do not overtake it for ever.
            if self.running + held > self._limits.active:
                return
            heapq.heappop(flow.waiting)
            if turn.done():  # its client is gone
                continue
            self._now = flow.start
            flow.start += tokens / flow.weight
            flow.running += held
            self.running += held
            turn.set_result(None)

    def _turn_away(self, newcomer: _Flow) -> None:
        """Refuse the last request of the key that waits with most; the newcomer's own if no key waits with more."""
        longest = max(self._flows.values(), key=lambda each: (len(each.waiting) / each.weight, each is newcomer))
        last = max(longest.waiting)
        longest.waiting.remove(last)
        heapq.heapify(longest.waiting)
        limits = self._limits
        last[-1].set_exception(
            ApiError(
                503,
                f"{self.running} sequences are in work and {limits.queued} requests wait; try again",
                code="overloaded",
                retry_after_s=limits.retry_after_s,
            )
        )
