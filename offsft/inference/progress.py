"""Shows a running stage's progress: a thread of the driver polls the coordinator, and draws one line."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions

from offsft.inference.coordinator import State
from offsft.runtime.console import Console, span
from offsft.runtime.placement import Need, waiting

_POLL_S = 1.0


@contextmanager
def show_progress(
    coordinator: Any, console: Console, *, what: str, total: int, done_before: int, need: Need
) -> Iterator[None]:
    """Show a stage's progress on the console until the block exits, and what unplaced engines wait for."""
    stop = threading.Event()
    thread = threading.Thread(
        target=_show, args=(coordinator, console, what, total, done_before, need, stop), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        console.done()


def _show(
    coordinator: Any, console: Console, what: str, total: int, done_before: int, need: Need, stop: threading.Event
) -> None:
    line = StageLine(what, total, done_before, need)
    mute_deaths = 0
    while not stop.wait(_POLL_S):
        try:
            state: State = ray.get(coordinator.state.remote(), timeout=5)
        except ray.exceptions.GetTimeoutError:
            continue
        if state.mute_deaths > mute_deaths:
            console.say(
                f"{what}: an engine died before it answered anything, its log is in logs/ of the run's folder; the next one"
                " must answer a question of ours first"
            )
        mute_deaths = state.mute_deaths
        console.progress(line.text(state, waiting(need, state.placed)))


class StageLine:
    """The line of a stage: what it waits for, what its engines do, how far it is."""

    def __init__(self, what: str, total: int, done_before: int, need: Need) -> None:
        self._what = what
        self._total = total
        self._done_before = done_before
        self._need = need
        self._first_s = self._first_working_s = time.monotonic()

    def text(self, state: State, waits: str | None) -> str:
        """The line for the coordinator's state; `waits` says what is missing in the cluster."""
        if not state.engines:
            doing = f"waiting: {waits}" if waits and not state.placed else state.doing or "starting the engine"
            self._first_working_s = time.monotonic()
            return f"{self._what}: {doing}, {span(self._first_working_s - self._first_s)}"
        done = sum(state.kinds.values())
        elapsed_s = max(time.monotonic() - self._first_working_s, 1e-9)
        parts = [f"{self._what}: {self._done_before + done} of {self._total}"]
        parts += [f"{kind} {count}" for kind, count in sorted(state.kinds.items(), key=lambda item: -item[1])]
        parts.append(f"{state.tokens / elapsed_s:.0f} tokens/s")
        if not done and state.doing:
            parts.append(f"{state.doing}, {span(elapsed_s)}")
        parts += state.waits[:1]
        if state.deaths:
            parts.append(f"{state.deaths} engine{'' if state.deaths == 1 else 's'} died")
        if waits:
            copies = self._need.copies
            placed = f"{state.placed} of {copies} engines have a place"
            parts.append(f"{placed if state.placed < copies else 'an engine lost its place'}: {waits}")
        if done:
            parts.append(f"{span(elapsed_s / done * (self._total - self._done_before - done))} left")
        return ", ".join(parts)
