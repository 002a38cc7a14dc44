"""What each training process is doing, for the screen, and the end of processes that do nothing any more.

The driver starts one `TrainingWatch`, a Ray actor on its own node. Each training process has a `Pulse`: it reports each
phase that it begins, and knows when it last showed a sign of life: a phase begun, a micro-batch, a step. A process
without any for `train.stall_s` seconds tells the watch. All processes of that attempt then write the stacks of their
threads to their logs and exit, which Ray Train counts as one failure of the workers. All of them: those that wait for
the one that hangs show the other half of the deadlock, and cannot go on without it.

A process that even its watching thread cannot run in, since something holds Python's lock, does not answer Ray either.
Ray Train considers it dead after ten minutes.
"""

import asyncio
import faulthandler
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import uuid4

import ray
import ray.exceptions

from offsft.runtime.console import put_output, span
from offsft.runtime.placement import drivers_node

_POLL_S = 1.0
_LAST_WORDS_S = 3.0
"""Time that a process leaves the others of its attempt to write their stacks: Ray Train ends them once one is gone."""
_ANSWER_S = 30.0
_CONCURRENCY = 10_000
_STDERR = 2


class Phase(StrEnum):
    """What a training process is doing."""

    CONNECTING = "connecting to the other workers"
    FETCHING = "fetching the model"
    READING = "reading the rewrites"
    LOADING = "loading the weights"
    WAITING = "waiting for the other workers"
    BUILDING = "building the optimizer"
    COMPILING = "compiling"
    WAITING_FOR_COMPILER = "waiting for another process that compiles"
    REFERENCE = "scoring the rows under the policy before training"
    GAP = "measuring the policy gap"
    RESUMING = "reading the checkpoint"
    TRAINING = "training"
    HELD_OUT = "measuring the held-out rows"
    SAVING = "saving a checkpoint"
    EXPORTING = "writing the model"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Doing:
    """A process's phase, and its age in seconds."""

    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True)
class WatchState:
    """What the processes of the present attempt do, by rank, and a line for each stall of the whole training."""

    doing: dict[int, Doing]
    stalls: list[str]


@dataclass(slots=True)
class _Member:
    """A process of the present attempt."""

    token: str
    node: str
    phase: Phase
    since_s: float


class TrainingWatch:
    """A Ray actor that knows what each training process does, and tells all of them when one has stalled."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._members: dict[int, _Member] = {}
        self._ends: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._stalls: list[str] = []

    async def begin(self, rank: int, token: str, node: str, phase: Phase) -> None:
        """Record the phase that a process begins; a new token is a new process of that rank."""
        if not self._ends[token].is_set():
            self._members[rank] = _Member(token, node, phase, self._clock())

    async def stall(self, rank: int, token: str, seconds: float, limit_s: float) -> None:
        """Record that a process has shown no sign of life for so long, and end its attempt; later reports are of the same stall."""
        member = self._members.get(rank)
        if member is None or member.token != token:
            return
        self._stalls.append(self._line(rank, member, seconds, limit_s))
        for each in self._members.values():
            self._ends[each.token].set()
        self._members.clear()

    async def until_stalled(self, token: str) -> None:
        """Return once a process of the same attempt has stalled."""
        await self._ends[token].wait()

    async def state(self) -> WatchState:
        now_s = self._clock()
        doing = {rank: Doing(each.phase, now_s - each.since_s) for rank, each in sorted(self._members.items())}
        return WatchState(doing, list(self._stalls))

    def _line(self, rank: int, member: _Member, seconds: float, limit_s: float) -> str:
        """The line for the user. A process that only waits is not the one to name while another does something else."""
        now_s = self._clock()
        busy = {other: each for other, each in self._members.items() if each.phase not in (Phase.WAITING, Phase.DONE)}
        if member.phase is Phase.WAITING and busy:
            rank, member = min(busy.items(), key=lambda item: item[1].since_s)
            seconds = now_s - member.since_s
        others = {each: one.phase for each, one in sorted(self._members.items()) if each != rank}
        beside = f"; {_by_phase(others)}" if others else ""
        return (
            f"worker {rank} on {member.node} has shown no sign of life for {span(seconds)} (train.stall_s={limit_s:g}),"
            f" {member.phase}{beside}; each worker's stack is at the end of its log, logs/train-*.log"
        )


def start_watch() -> Any:
    """Start the watch of a training on the driver's node."""
    actor: Any = ray.remote(TrainingWatch)
    return actor.options(num_cpus=0, max_concurrency=_CONCURRENCY, scheduling_strategy=drivers_node()).remote()


def describe(doing: dict[int, Doing]) -> str:
    """One line for the screen, as `loading the weights, 12 s`, or by worker where they differ."""
    phases = {rank: each.phase for rank, each in doing.items()}
    seconds = span(min(each.seconds for each in doing.values()))
    if len(set(phases.values())) == 1:
        return f"{next(iter(phases.values()))}, {seconds}"
    return f"{_by_phase(phases)}, {seconds}"


def _by_phase(phases: dict[int, Phase]) -> str:
    ranks: defaultdict[Phase, list[str]] = defaultdict(list)
    for rank, phase in phases.items():
        ranks[phase].append(str(rank))
    return "; ".join(f"worker{'s' if len(each) > 1 else ''} {', '.join(each)} {phase}" for phase, each in ranks.items())


class Pulse:
    """A training process's phase and last sign of life; without a watch it only remembers the phase."""

    def __init__(self, watch: Any = None, rank: int = 0, stall_s: float = float("inf")) -> None:
        self._watch = watch
        self._rank = rank
        self._stall_s = stall_s
        self._token = uuid4().hex
        self._node = f"{ray.util.get_node_ip_address()} ({socket.gethostname()})" if watch is not None else ""
        self._phase = Phase.CONNECTING
        self._ended = threading.Event()
        self.beat()
        if watch is not None:
            self.begin(Phase.CONNECTING)
            threading.Thread(target=self._keep_watch, name="pulse", daemon=True).start()

    def begin(self, phase: Phase) -> Phase:
        """Begin a phase; returns the one before it."""
        before, self._phase = self._phase, phase
        self.beat()
        if self._watch is not None:
            self._watch.begin.remote(self._rank, self._token, self._node, phase)
        return before

    def beat(self) -> None:
        """Show a sign of life."""
        self._beat_s = time.monotonic()

    def stop(self) -> None:
        """End the watching: the work is done."""
        self._ended.set()
        self.begin(Phase.DONE)

    def _keep_watch(self) -> None:
        try:
            over = self._watch.until_stalled.remote(self._token)
            while not self._ended.wait(_POLL_S):
                silent_s = time.monotonic() - self._beat_s
                if silent_s > self._stall_s:
                    told = self._watch.stall.remote(self._rank, self._token, silent_s, self._stall_s)
                    ray.get(told, timeout=_ANSWER_S)
                if ray.wait([over], timeout=0)[0] and not self._ended.is_set():
                    _end_process()
        except ray.exceptions.RayError:  # the driver is gone, and this process will be soon
            return


def _end_process() -> None:
    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
    put_output()
    time.sleep(_LAST_WORDS_S)
    os._exit(1)


pulse = Pulse()
"""The pulse of this process; `start_pulse` replaces it in a training process."""


def start_pulse(watch: Any, rank: int, stall_s: float) -> None:
    """Report this process to the watch from now on."""
    global pulse  # a process trains one rank
    pulse = Pulse(watch, rank, stall_s)


def begin(phase: Phase) -> Phase:
    """Begin a phase of this process; returns the one before it."""
    return pulse.begin(phase)


def beat(*_: Any) -> None:
    """Show a sign of life of this process; takes any arguments, so that it can be a module's forward hook."""
    pulse.beat()
