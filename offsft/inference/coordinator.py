"""The coordinator of a stage: one Ray actor that knows what is done, what killed its engine, and whether to stop.

The driver starts one per job, on its own node, polls it for the display, and ends it with the job. Engine actors ask it before they begin
problems (`begin`) and report the outcomes to it. It holds no problem and starts no engine: Ray Data does, and a
restarted engine actor has no memory of the previous one. State that must outlive an engine is kept here.

Which problem is blamed for a death: an engine dies with many problems in progress, and one of them may be the cause.
All of them become suspects (`Blame`). From then on an engine runs suspects one at a time, alongside problems that are
not suspect. When an engine dies again with a suspect in progress, that suspect is blamed. A suspect that finishes is
cleared; one that killed its engine `tries` times is poison, and goes to quarantine.

An engine that dies before it has answered anything may be broken itself: one that starts, and dies of any request. Its
successor has to answer a request of its actor's own first (`must_prove`). After `engine.start_tries` such deaths in a
row the job ends, and also after so many deaths of any kind, with no problem finished between, that the problems cannot
be what kills.

The order that an engine actor keeps: it awaits `begin` before it begins a problem, awaits `engine_died` before its
process exits, and sends `clear_suspect` before it admits its next suspect. Otherwise a problem could be tried again
before its death is known.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import ray

from offsft.inference.engines.base import Usage
from offsft.runtime.placement import drivers_node

_POISON_IN_A_ROW = 5
"""Poison problems in a row, with none finished between, after which the engine is blamed and not the problems."""
_FRESH_S = 15.0
"""Age of the last report of a wait after which it counts as over."""
_CONCURRENCY = 10_000
"""Concurrent calls: a waiting one of each engine until the job stops, and short ones."""


class Admission(StrEnum):
    """Whether and how a problem may run."""

    GO = "go"
    ALONE = "alone"
    """A suspect: its engine died while it was in progress. No other suspect may run on the same engine meanwhile."""
    POISON = "poison"
    """Its engine died too often while it was the only suspect: it is not tried again."""
    STOP = "stop"
    """The job is ending: the problem is left for the next one."""


@dataclass(frozen=True, slots=True)
class State:
    """The stage's state for the display, and the error of an engine that could not start."""

    kinds: dict[str, int]
    """Finished problems by outcome."""
    tokens: int
    placed: int
    """Total engines that have been placed in the cluster."""
    engines: int
    """Total engines that have started."""
    doing: str
    """What the last of the engines does until its first answer."""
    waits: list[str]
    """What engines that are ready wait for."""
    deaths: int
    mute_deaths: int
    """Deaths in a row of engines that had answered nothing."""
    error: str | None
    usage: Usage
    """Of servers that count tokens."""


@dataclass
class Blame:
    """Tracks the problems that may have killed engines; a death with a suspect in progress is blamed on it."""

    tries: int
    """Deaths after which a problem is poison."""
    suspects: set[str] = field(default_factory=set)
    deaths: Counter[str] = field(default_factory=Counter)

    def admission(self, problem: str) -> Admission:
        if self.deaths[problem] >= self.tries:
            return Admission.POISON
        return Admission.ALONE if problem in self.suspects else Admission.GO

    def engine_died(self, in_progress: list[str], suspect: str | None) -> None:
        """Record that an engine died with these problems in progress; `suspect` is the one suspect, or None."""
        if suspect is None:
            self.suspects.update(in_progress)
        else:
            # The others do not become suspects: the cause is known, and they would all have to run alone.
            self.deaths[suspect] += 1

    def clear_suspect(self, problem: str) -> None:
        """Clear a problem that finished, so it kills no engine."""
        self.suspects.discard(problem)
        self.deaths.pop(problem, None)


@contextmanager
def open_coordinator(poison_tries: int, start_tries: int) -> Iterator[Any]:
    """A stage's coordinator for the block, on the driver's node: on another, the job's state would be lost with that node.

    However the block ends, the coordinator does too, and its engines' actors leave with it (`is_open`).
    """
    actor: Any = ray.remote(Coordinator)
    options = actor.options(num_cpus=0, max_concurrency=_CONCURRENCY, scheduling_strategy=drivers_node())
    coordinator = options.remote(poison_tries, start_tries)
    try:
        yield coordinator
    finally:
        ray.kill(coordinator)


class Coordinator:
    """A Ray actor that admits problems, records their outcomes, and tells waiting engines when to stop.

    Its methods are asynchronous, so that they run one after another on one loop and need no lock.
    """

    def __init__(self, poison_tries: int, start_tries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start_tries = start_tries
        self._waits: dict[str, tuple[str, float]] = {}
        self._kinds: Counter[str] = Counter()
        self._tokens = self._placed = self._engines = self._deaths = 0
        self._deaths_in_vain = self._mute_deaths = 0
        self._doing = ""
        self._error: str | None = None
        self._usage = Usage()
        self._blame = Blame(poison_tries)
        self._stop = asyncio.Event()

    async def engine_placed(self, doing: str) -> None:
        """Record that an actor has its resources, and what it does before its engine is ready."""
        self._placed += 1
        self._doing = doing

    async def engine_begins(self, doing: str) -> None:
        """Record what an actor does now, before its engine is ready."""
        self._doing = doing

    async def engine_started(self, doing: str) -> None:
        """Record that an engine is ready to sample, and what it does beside its first samples."""
        self._engines += 1
        self._doing = doing

    async def engine_waits(self, engine: str, what: str) -> None:
        """Record what an engine waits for; sent again while it does."""
        self._waits[engine] = (what, self._clock())

    async def engine_failed(self, error: str) -> None:
        """Record why an engine could not start, or a server refuses or is unreachable; the first reason is kept."""
        self._error = self._error or error

    async def engine_died(self, in_progress: list[str], suspect: str | None, *, answered: bool) -> str:
        """Record that an engine died (see `Blame.engine_died`), and whether it had answered anything.

        Returns why no other engine should be started; empty if one should.
        """
        self._deaths += 1
        self._deaths_in_vain += 1
        self._mute_deaths = 0 if answered else self._mute_deaths + 1
        self._blame.engine_died(in_progress, suspect)
        if not in_progress and self._mute_deaths >= self._start_tries:
            return f"an engine starts and dies at its first request, {self._mute_deaths} times in a row (engine.start_tries)"
        if self._deaths_in_vain >= _POISON_IN_A_ROW * self._blame.tries:
            return f"{self._deaths_in_vain} engines died in a row, and no problem was finished between them"
        return ""

    async def must_prove(self) -> bool:
        """Whether a new engine has to answer a request of its actor's own before it gets problems."""
        return self._mute_deaths > 0

    async def engine_proved(self) -> None:
        """Record that a new engine has answered: what killed the one before it was a problem, not its first request."""
        self._mute_deaths = 0

    async def begin(self, problems: list[str]) -> list[Admission]:
        """The admission of each problem."""
        return [Admission.STOP if self._stop.is_set() else self._blame.admission(problem) for problem in problems]

    async def clear_suspect(self, problem: str) -> None:
        """Clear a finished suspect; called at once, before its engine begins another suspect."""
        self._blame.clear_suspect(problem)

    async def problems_finished(self, kinds: dict[str, int], tokens: int) -> None:
        """Record finished problems: their number by outcome, and the tokens sampled for them."""
        self._deaths_in_vain = 0
        self._kinds.update(kinds)
        self._tokens += tokens

    async def add_usage(self, usage: Usage) -> None:
        """Add an engine's further usage of a server that counts tokens."""
        self._usage = self._usage.plus(usage)

    async def stop(self) -> None:
        """Begin no further problem; those in progress have the engines' grace period."""
        self._stop.set()

    async def stopped(self) -> None:
        """Return once the job is to stop."""
        await self._stop.wait()

    async def is_open(self) -> bool:
        """True; the caller sees this actor's end by the call's failure."""
        return True

    async def state(self) -> State:
        return State(
            dict(self._kinds),
            self._tokens,
            self._placed,
            self._engines,
            self._doing,
            [what for what, told_s in self._waits.values() if self._clock() - told_s < _FRESH_S],
            self._deaths,
            self._mute_deaths,
            self._error,
            self._usage,
        )
