"""Shows how long a piece of work has taken that reports nothing itself, and what the cluster lacks for it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from offsft.runtime.console import Console, span
from offsft.runtime.placement import Need, shortage

_POLL_S = 1.0


@contextmanager
def show_elapsed(console: Console, what: str, need: Need | None = None) -> Iterator[None]:
    """Show `what` and its duration until the block ends; with a `need`, also that the cluster is too small for it."""
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(console, what, need, stop), daemon=True)
    console.progress(what)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        console.done()


def _show(console: Console, what: str, need: Need | None, stop: threading.Event) -> None:
    started_s = time.monotonic()
    while not stop.wait(_POLL_S):
        short = shortage(need) if need else None
        console.progress(f"{what}{f': waiting: {short}' if short else ''}, {span(time.monotonic() - started_s)}")
