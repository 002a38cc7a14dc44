"""What a person sees of a run: plain progress lines or one live line; engines' chatter goes to log files."""

import os
import sys
import time
from pathlib import Path
from typing import IO

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text

_PLAIN_INTERVAL_S = 10.0


def output_to_file(path: Path) -> None:
    """Send this process's standard output and error, and those of the processes it starts, to a file from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class Console:
    """The terminal, kept while all other output of the process goes to a log file.

    In a terminal `progress` redraws one line; elsewhere it prints a plain line every ten seconds.
    """

    def __init__(self) -> None:
        # A second descriptor of the terminal, which stays when 1 and 2 are sent to the log.
        self._stream: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        self.rich = RichConsole(file=self._stream, highlight=False)
        self.log: Path | None = None
        self._live: Live | None = None
        self._printed_s = float("-inf")

    def quiet(self, log: Path) -> None:
        """Send everything but this console's own lines to `log`."""
        self.log = log
        output_to_file(log)

    def say(self, text: str) -> None:
        """Print one lasting line."""
        self.done()
        self.rich.print(text, markup=False, soft_wrap=True)

    def progress(self, text: str) -> None:
        """Show how far a long piece of work is."""
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
    """A duration for people: `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
