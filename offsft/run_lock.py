"""One job at a time on a run's folder.

On a disk it is the kernel's file lock, which ends with the process that holds it. On S3 it is an object that is made only
where there is none, and written again while its job lives; one that was not written for STALE_S seconds is taken over.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from upath import UPath

from offsft.errors import RunFolderError
from offsft.storage import StoragePath
from offsft.storage_fault import storage_fault

BEAT_S = 10.0
"""How often a lock on S3 is written again."""
STALE_S = 60.0
"""How long a lock on S3 may stand without being written again until another job takes it over."""


@contextmanager
def held(folder: StoragePath) -> Iterator[None]:
    """Hold the folder for the block. What a dead job left behind hinders nobody, on S3 after STALE_S seconds at most.

    Raises:
        RunFolderError: another job holds it; names that job.
    """
    with _held_on_s3(folder) if isinstance(folder, UPath) else _held_on_disk(folder):
        yield


@contextmanager
def _held_on_disk(folder: Path) -> Iterator[None]:
    holder = folder / "lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RunFolderError(_in_use(folder, _noted(holder))) from None
    except OSError as error:
        raise RunFolderError(f"run={folder}: the folder cannot be written: {error}") from None
    try:
        holder.write_text(json.dumps(_this_job()) + "\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _held_on_s3(folder: UPath) -> Iterator[None]:
    lock = _ObjectLock(folder)
    try:
        lock.acquire()
    except OSError as error:
        told = storage_fault(error, f"run={folder}")
        raise told or RunFolderError(f"run={folder}: the folder cannot be written: {error}") from None
    stop = threading.Event()
    beat = threading.Thread(target=lock.beat, args=(stop, _leave), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        lock.release()


class _ObjectLock:
    """The lock object of a folder on S3. It is only ever written on the condition that nobody else has written it since."""

    def __init__(self, folder: UPath) -> None:
        self._folder = folder
        self._fs: Any = folder.fs
        bucket, _, key = (folder / "lock.json").path.partition("/")
        self._at = {"Bucket": bucket, "Key": key}
        self._job = _this_job() | {"token": uuid4().hex, "beat": 0}
        self._tag = ""

    def acquire(self) -> None:
        """Make the object, or take over a dead job's."""
        if self._put(IfNoneMatch="*"):
            return
        found = self._get()
        if found is None:  # it was let go just now
            if self._put(IfNoneMatch="*"):
                return
            raise RunFolderError(_in_use(self._folder, "another job"))
        job, tag, age_s = found
        if not (age_s > STALE_S or _is_dead(job)) or not self._put(IfMatch=tag):
            raise RunFolderError(
                f"{_in_use(self._folder, _described(job))}. It was heard of {age_s:.0f} s ago; a dead job's folder is free"
                f" again {STALE_S:.0f} s after it was last heard of"
            )

    def beat(self, stop: threading.Event, leave: Callable[[str], None]) -> None:
        """Write the object again until `stop`; `leave` where another job has taken it over."""
        while not stop.wait(BEAT_S):
            try:
                kept = self._put(IfMatch=self._tag)
            except OSError as error:  # S3 does not answer: the next time it may, and if not, others see it go stale
                sys.stderr.write(f"{self._folder}: the lock could not be written again: {error}\n")
                continue
            if not kept and not stop.is_set():
                leave(
                    f"error: another job has taken over {self._folder}, as nothing was heard of this one; it ends here"
                )

    def release(self) -> None:
        found = self._get()
        if found is not None and found[1] == self._tag:
            self._fs.call_s3("delete_object", **self._at)

    def _put(self, **condition: str) -> bool:
        """Write the object; False where the condition does not hold."""
        self._job["beat"] += 1  # so that each writing has a tag of its own
        try:
            answer = self._fs.call_s3("put_object", Body=json.dumps(self._job).encode(), **self._at, **condition)
        except FileNotFoundError:  # there is nothing any more that could match
            return False
        except OSError as error:
            if not _is_unmet(error):
                raise
            # A repeated request fails on what its first try wrote.
            found = self._get()
            if found is None or (found[0].get("token"), found[0].get("beat")) != (
                self._job["token"],
                self._job["beat"],
            ):
                return False
            self._tag = found[1]
            return True
        self._tag = answer["ETag"]
        return True

    def _get(self) -> tuple[dict[str, Any], str, float] | None:
        """The job that the object names, its tag, and its age in seconds by the clock of S3."""
        try:
            answer = self._fs.call_s3("head_object", **self._at)
            job = json.loads(self._fs.cat_file("/".join(self._at.values())))
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return job, answer["ETag"], (now - answer["LastModified"]).total_seconds()


def _leave(message: str) -> None:
    """End this process at once: two jobs that write into one folder would spoil it."""
    sys.stderr.write(message + "\n")
    os._exit(1)


def _in_use(folder: StoragePath, job: str) -> str:
    return f"{folder} is in use by {job}; wait for it or end it, or give this experiment a folder of its own (run=...)"


def _this_job() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "place": _place(),
        "process": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(" ".join(sys.orig_argv).split()),
    }


def _place() -> str:
    """What a process number is valid in: this start of this machine, and the name space of the container."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}" if boot.exists() else ""


def _is_dead(job: dict[str, Any]) -> bool:
    """Whether a job ran where this one runs, and runs no more; of other machines nothing is known."""
    try:
        return job["place"] == _place() != "" and not Path(f"/proc/{int(job['process'])}").exists()
    except (KeyError, ValueError, TypeError):
        return False


def _is_unmet(error: OSError) -> bool:
    """Whether S3 refused a request for its condition, and not for anything else."""
    answer = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code") in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def _noted(holder: Path) -> str:
    try:
        return _described(json.loads(holder.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # it is just starting or ending
        return "another job"


def _described(job: dict[str, Any]) -> str:
    try:
        return f"process {job['process']} on {job['host']} since {job['since']} ({job['command']})"
    except KeyError:
        return "another job"
