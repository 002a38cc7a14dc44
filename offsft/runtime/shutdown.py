"""Shutdown on SIGTERM or Ctrl-C: a stage may finish its work within the grace period; a second signal ends at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_received: int | None = None
_out_of_time = False
_begin_stop: Callable[[], None] | None = None


def listen() -> None:
    """Handle the signals from now on. Ray installs its own handler when it starts, so this is called after it too."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, _receive)


def exit_status() -> int:
    """The exit status by shell convention: 128 plus the signal's number; 130 if none was received."""
    return 128 + (_received or signal.SIGINT)


@contextmanager
def stop_gracefully(begin_stop: Callable[[], None], grace_s: float) -> Iterator[None]:
    """Run a block that ends early when `begin_stop` is called, which a signal does in a thread.

    Raises:
        KeyboardInterrupt: when the block ended after a signal, or had not ended `grace_s` seconds after it.
    """
    global _begin_stop  # signals concern the whole process

    def stop() -> None:
        begin_stop()
        timer = threading.Timer(grace_s, _interrupt)
        timer.daemon = True
        timer.start()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    listen()
    _begin_stop = stop
    try:
        yield
    finally:
        _begin_stop = None
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
    if _received is not None:
        raise KeyboardInterrupt


def _receive(number: int, _: FrameType | None) -> None:
    global _received
    if _out_of_time:
        raise KeyboardInterrupt
    if _received is not None:
        os._exit(128 + number)
    _received = number
    if _begin_stop is None:
        raise KeyboardInterrupt
    # In a thread: the main thread may hold a lock that the stage's own call needs.
    threading.Thread(target=_begin_stop, daemon=True).start()


def _interrupt() -> None:
    global _out_of_time
    if _begin_stop is not None:
        _out_of_time = True
        signal.raise_signal(signal.SIGINT)
