"""The one actor of a stage that knows every problem's fate: what is done, what killed its engine, whether to stop."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_CONCURRENCY = 10_000
"""Calls at once: one waiting call of each engine, and short ones."""


class Leave(StrEnum):
    """What a problem may do."""

    GO = "go"
    ALONE = "alone"
    """Its engine died while it was in work, perhaps because of it: no other such problem may run beside it."""
    POISON = "poison"
    """Its engine died too often while it ran alone: it is not tried again."""
    STOP = "stop"
    """The job is ending: it is left for the next one."""


@dataclass(frozen=True, slots=True)
class State:
    """For the display, and for the error of an engine that could not start."""

    kinds: dict[str, int]
    """Finished problems by what came out."""
    tokens: int
    placed: int
    """Engines that have found a place in the cluster, in all."""
    engines: int
    """Engines that have started, in all."""
    deaths: int
    error: str | None


@dataclass
class Blame:
    """Which problems may have killed engines. An engine's death with one suspect in work is that suspect's doing."""

    tries: int
    """Deaths after which a problem is poison."""
    suspects: set[str] = field(default_factory=set)
    deaths: Counter[str] = field(default_factory=Counter)

    def leave(self, problem: str) -> Leave:
        if self.deaths[problem] >= self.tries:
            return Leave.POISON
        return Leave.ALONE if problem in self.suspects else Leave.GO

    def died(self, in_work: list[str], alone: str | None) -> None:
        """An engine died with these problems in work, `alone` being the suspect among them."""
        if alone is None:
            self.suspects.update(in_work)
        else:
            self.deaths[alone] += 1

    def acquit(self, problem: str) -> None:
        """It was finished, so it kills no engine."""
        self.suspects.discard(problem)
        self.deaths.pop(problem, None)


def hire(poison_tries: int) -> Any:
    """Start the foreman of a stage beside the driver: with any other node the job would lose what it knows."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Foreman)
    return actor.options(num_cpus=0, max_concurrency=_CONCURRENCY, scheduling_strategy=here).remote(poison_tries)


class Foreman:
    """A Ray actor, asked before problems are begun and told after them. Engines wait here for the word to stop."""

    def __init__(self, poison_tries: int) -> None:
        self._kinds: Counter[str] = Counter()
        self._tokens = self._placed = self._engines = self._deaths = 0
        self._error: str | None = None
        self._blame = Blame(poison_tries)
        self._stop = asyncio.Event()

    async def engine_placed(self) -> None:
        """An actor has been given its resources; it is about to start its engine."""
        self._placed += 1

    async def engine_started(self) -> None:
        self._engines += 1

    async def engine_failed(self, error: str) -> None:
        """An engine could not start; the first one's reason is kept."""
        self._error = self._error or error

    async def engine_died(self, in_work: list[str], alone: str | None) -> None:
        self._deaths += 1
        self._blame.died(in_work, alone)

    async def begin(self, problems: list[str]) -> list[Leave]:
        """What each of these problems may do."""
        return [Leave.STOP if self._stop.is_set() else self._blame.leave(problem) for problem in problems]

    async def acquit(self, problem: str) -> None:
        """A suspect was finished; told at once, before its engine begins another."""
        self._blame.acquit(problem)

    async def ended(self, kinds: dict[str, int], tokens: int) -> None:
        """So many problems were finished, by what came out, with so many tokens sampled for them."""
        self._kinds.update(kinds)
        self._tokens += tokens

    async def stop(self) -> None:
        """No problem is begun from now on; those in work have the engines' time of grace."""
        self._stop.set()

    async def stopped(self) -> None:
        """Answers once the job is to stop."""
        await self._stop.wait()

    async def state(self) -> State:
        return State(dict(self._kinds), self._tokens, self._placed, self._engines, self._deaths, self._error)
