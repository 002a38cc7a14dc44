"""Showing how far the problems of a stage are, while it runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions

from offsft.console import Console, span
from offsft.foreman import State
from offsft.placement import Need, waiting

_POLL_S = 1.0


@contextmanager
def shown(foreman: Any, console: Console, *, what: str, total: int, done_before: int, need: Need) -> Iterator[None]:
    """Show a stage's progress on the console until the block is left, and what engines without a place wait for."""
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(foreman, console, what, total, done_before, need, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        console.done()


def _show(
    foreman: Any, console: Console, what: str, total: int, done_before: int, need: Need, stop: threading.Event
) -> None:
    first_s = first_working_s = time.monotonic()
    while not stop.wait(_POLL_S):
        try:
            state: State = ray.get(foreman.state.remote(), timeout=5)
        except ray.exceptions.GetTimeoutError:
            continue
        waits = waiting(need, state.placed)
        if not state.engines:
            doing = f"waiting: {waits}" if waits and not state.placed else "starting the engine"
            console.progress(f"{what}: {doing}, {span(time.monotonic() - first_s)}")
            first_working_s = time.monotonic()
            continue
        done = sum(state.kinds.values())
        elapsed_s = max(time.monotonic() - first_working_s, 1e-9)
        parts = [f"{what}: {done_before + done} of {total}"]
        parts += [f"{kind} {count}" for kind, count in sorted(state.kinds.items(), key=lambda item: -item[1])]
        parts.append(f"{state.tokens / elapsed_s:.0f} tokens/s")
        if state.deaths:
            parts.append(f"{state.deaths} engines died")
        if waits:
            placed = f"{state.placed} of {need.copies} engines have a place"
            parts.append(f"{placed if state.placed < need.copies else 'an engine lost its place'}: {waits}")
        if done:
            parts.append(f"{span(elapsed_s / done * (total - done_before - done))} left")
        console.progress(", ".join(parts))
