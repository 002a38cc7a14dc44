"""Counting what the actors of a stage have done, and showing it while the stage runs."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.exceptions
from ray.actor import ActorHandle

from offsft.console import Console, span

_POLL_S = 1.0


@ray.remote(num_cpus=0)
class Tally:
    """Counts problems by kind and sampled tokens; holds the first error of an engine that could not start."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._tokens = 0
        self._engines = 0
        self._error: str | None = None

    def add(self, kind: str, tokens: int) -> None:
        self._kinds[kind] += 1
        self._tokens += tokens

    def started(self) -> None:
        self._engines += 1

    def fail(self, error: str) -> None:
        self._error = self._error or error

    def state(self) -> tuple[dict[str, int], int, int, str | None]:
        """Problems by kind, sampled tokens, engines started, first start error."""
        return dict(self._kinds), self._tokens, self._engines, self._error


@contextmanager
def shown(tally: ActorHandle, console: Console, *, what: str, total: int, done_before: int) -> Iterator[None]:
    """Show a stage's progress on the console until the block is left."""
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(tally, console, what, total, done_before, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        console.done()


def _show(tally: ActorHandle, console: Console, what: str, total: int, done_before: int, stop: threading.Event) -> None:
    first_s = first_working_s = time.monotonic()
    while not stop.wait(_POLL_S):
        try:
            kinds, tokens, engines, _ = ray.get(tally.state.remote(), timeout=5)
        except ray.exceptions.GetTimeoutError:
            continue
        if not engines:
            console.progress(f"{what}: starting the engine, {span(time.monotonic() - first_s)}")
            first_working_s = time.monotonic()
            continue
        done = sum(kinds.values())
        elapsed_s = max(time.monotonic() - first_working_s, 1e-9)
        parts = [f"{what}: {done_before + done} of {total}"]
        parts += [f"{kind} {count}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])]
        parts.append(f"{tokens / elapsed_s:.0f} tokens/s")
        if done:
            parts.append(f"{span(elapsed_s / done * (total - done_before - done))} left")
        console.progress(", ".join(parts))
