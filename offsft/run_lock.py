"""One job at a time on a run's folder: the kernel's file lock, which ends with the process that holds it."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from offsft.errors import RunFolderError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder for the block. What a dead job left behind hinders nobody: its lock died with it.

    Raises:
        RunFolderError: another job holds it; names that job.
    """
    holder = folder / "lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"{folder} is in use by {_description(holder)}; wait for it or end it, or give this experiment a folder of"
            " its own (run=...)"
        ) from None
    except OSError as error:
        raise RunFolderError(f"run={folder}: the folder cannot be written: {error}") from None
    try:
        holder.write_text(
            json.dumps(
                {
                    "host": socket.gethostname(),
                    "process": os.getpid(),
                    "since": datetime.now().astimezone().isoformat(timespec="seconds"),
                    "command": " ".join(" ".join(sys.orig_argv).split()),
                }
            )
            + "\n",
            encoding="utf-8",
        )
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _description(holder: Path) -> str:
    try:
        job = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {job['process']} on {job['host']} since {job['since']} ({job['command']})"
    except (OSError, ValueError, KeyError):  # it is just starting or ending
        return "another job"
