"""Console output of a run: plain progress lines or one live line; engines' output goes to log files."""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text
from upath import UPath

from offsft.storage.paths import StoragePath, write_bytes

LOG_S = 10.0
"""Seconds between uploads of a log to S3; the output since the last one may be lost with the machine."""
_PUT_S = 10.0
_PLAIN_INTERVAL_S = 10.0
_copied: tuple[Path, UPath] | None = None


def output_to_file(path: StoragePath) -> None:
    """Redirect the standard output and error of this process, and of the processes it starts, to a file.

    On S3 the file is uploaded again every LOG_S seconds while it grows, and by `put_output`.
    """
    global _copied  # standard output is shared by the whole process
    local = path if isinstance(path, Path) else Path(tempfile.mkdtemp(prefix="offsft-log-")) / path.name
    local.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    if isinstance(path, UPath):
        _copied = (local, path)
        threading.Thread(target=_keep_putting, args=_copied, daemon=True).start()


def put_output() -> None:
    """Upload this process's output so far to its log on S3; a local log already has it.

    Call it where a process ends, not at interpreter exit: the client's threads are gone by then.
    """
    if _copied is not None and not sys.is_finalizing():
        sys.stdout.flush()
        thread = threading.Thread(target=_put, args=_copied, daemon=True)
        thread.start()
        thread.join(_PUT_S)


def _put(local: Path, remote: UPath) -> None:
    try:
        write_bytes(remote, local.read_bytes())
    except Exception as error:  # of many kinds: a failed log upload must not end the work
        sys.stderr.write(f"{remote} could not be written: {error}\n")


def _keep_putting(local: Path, remote: UPath) -> None:
    size = -1
    while _copied == (local, remote):
        if local.stat().st_size != size:
            size = local.stat().st_size
            _put(local, remote)
        time.sleep(LOG_S)


class _Terminal(RichConsole):
    """A console whose reader may close the pipe, as `| head` does: printing then stops, and the job goes on.

    By default rich would end the process silently.
    """

    left = False

    def on_broken_pipe(self) -> None:
        self.left = self.quiet = True
        # Text left in the stream's buffer would fail again at the end of the process.
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, self.file.fileno())
        os.close(descriptor)
        sys.stderr.write("nothing reads this job's output any more; it goes on, and what it says stands here\n")


class Console:
    """The terminal, kept while all other output of the process goes to a log file.

    In a terminal `progress` redraws one line; elsewhere it prints a plain line every ten seconds.
    """

    def __init__(self) -> None:
        # A second descriptor of the terminal, which stays when 1 and 2 are redirected to the log.
        self._stream: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        self.rich = _Terminal(file=self._stream, highlight=False)
        self.log: StoragePath | None = None
        self._live: Live | None = None
        self._printed_s = float("-inf")

    def quiet(self, log: StoragePath) -> None:
        """Send everything but this console's own lines to `log`."""
        self.log = log
        output_to_file(log)

    def say(self, text: str) -> None:
        """Print one permanent line."""
        self.done()
        self.rich.print(text, markup=False, soft_wrap=True)
        if self.rich.left:
            sys.stderr.write(f"{text}\n")  # to the log, once output is redirected

    def progress(self, text: str) -> None:
        """Show the progress of a long task."""
        if self.rich.is_terminal:
            if self._live is None:
                self._live = Live(console=self.rich, transient=True, redirect_stdout=False, redirect_stderr=False)
                self._live.start()
            self._live.update(Text(text))
        elif time.monotonic() - self._printed_s >= _PLAIN_INTERVAL_S:
            self._printed_s = time.monotonic()
            self.rich.print(text, markup=False, soft_wrap=True)

    def done(self) -> None:
        """End the progress line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._printed_s = float("-inf")


def span(seconds: float) -> str:
    """Format a duration for people: `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
