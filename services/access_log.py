"""The access log: JSON lines, written by a thread of their own, so that a disk that hangs holds up no request."""

import atexit
import json
import logging
import logging.handlers
import queue
import sys
import time
from pathlib import Path
from typing import Any

from offsft.runtime.metrics import LOG_LINES_DROPPED

_MOST_WAITING = 10_000
"""Lines that wait for the disk; beyond that they are counted and dropped."""


class _Listener(logging.handlers.QueueListener):
    def enqueue_sentinel(self) -> None:
        """Ask the thread to end after what waits; where the queue is full, once there is room."""
        while True:
            try:
                return super().enqueue_sentinel()
            except queue.Full:
                time.sleep(0.01)


class AccessLogFile:
    """Appends lines to a file, which may be moved or removed at any time (logrotate); a new one is begun then."""

    def __init__(self, path: str | None) -> None:
        """Open the log at `path`, by default on standard output."""
        if path is None:
            target: logging.Handler = logging.StreamHandler(sys.stdout)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            target = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
        target.setFormatter(logging.Formatter("%(message)s"))
        self._waiting: queue.Queue[Any] = queue.Queue(_MOST_WAITING)
        self._listener = _Listener(self._waiting, target)
        self._listener.start()
        self._closed = False
        atexit.register(self.close)

    def write(self, line: dict[str, Any]) -> None:
        """Hand over a line; it is in the file a moment later."""
        record = logging.LogRecord("access", logging.INFO, "", 0, json.dumps(line), None, None)
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            LOG_LINES_DROPPED.add()

    def close(self) -> None:
        """Write what waits, and end; lines after that are lost."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            self._listener.stop()
