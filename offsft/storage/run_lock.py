"""The lock that lets one job at a time use a run's folder.

Who owns what: the driver of a job holds the lock, from before it reads the folder until its last write. Workers and
engines write on its behalf and take no lock. Readers, such as the report, take none either.

On a disk it is the kernel's file lock on `.lock`, which is released when the process that holds it ends, however it
ends. `lock.json` next to it is only a note for people. It is written after the lock is acquired and removed before it
is released, so that it never names a job that does not hold the lock.

S3 has no locks that end with a process, so there `lock.json` itself is the lock. The object is created only if none
exists (If-None-Match), and rewritten every BEAT_S seconds while its job lives. Every write is conditional on the object
being as it was last seen (If-Match): of two jobs that try at once, one fails. An object that was not written for
STALE_S seconds, by the clock of S3 and not of any machine, is considered a dead job's and is taken over. A job that
was only cut off for that long finds its own write refused and ends at once: from then on the folder belongs to the
other.
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
from offsft.storage.faults import storage_fault
from offsft.storage.paths import StoragePath

BEAT_S = 10.0
"""Seconds between two writes of a lock on S3."""
STALE_S = 60.0
"""Seconds without a write after which a lock on S3 is considered a dead job's."""


@contextmanager
def lock_run(folder: StoragePath) -> Iterator[None]:
    """Hold the folder's lock for the block. A dead job's lock blocks nobody, on S3 after STALE_S seconds at most.

    Raises:
        RunFolderError: another job holds it; names that job.
    """
    with _lock_on_s3(folder) if isinstance(folder, UPath) else _lock_on_disk(folder):
        yield


@contextmanager
def _lock_on_disk(folder: Path) -> Iterator[None]:
    holder = folder / "lock.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise RunFolderError(_in_use(folder, _read_note(holder))) from None
    except OSError as error:
        raise RunFolderError(f"run={folder}: the folder cannot be written: {error}") from None
    try:
        holder.write_text(json.dumps(_this_job()) + "\n", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _lock_on_s3(folder: UPath) -> Iterator[None]:
    lock = _ObjectLock(folder)
    try:
        lock.acquire()
    except OSError as error:
        told = storage_fault(error, f"run={folder}")
        raise told or RunFolderError(f"run={folder}: the folder cannot be written: {error}") from None
    # In a thread, because the driver's own loop waits for Ray for hours.
    stop = threading.Event()
    beat = threading.Thread(target=lock.beat, args=(stop, _leave), daemon=True)
    beat.start()
    try:
        yield
    finally:
        # In this order: a beat after the release would find the object gone, and end the process.
        stop.set()
        beat.join()
        lock.release()


class _ObjectLock:
    """The lock object of a folder on S3. Every write is conditional on nobody else having written it since."""

    def __init__(self, folder: UPath) -> None:
        self._folder = folder
        self._fs: Any = folder.fs
        bucket, _, key = (folder / "lock.json").path.partition("/")
        self._at = {"Bucket": bucket, "Key": key}
        self._job = _this_job() | {"token": uuid4().hex, "beat": 0}
        self._tag = ""

    def acquire(self) -> None:
        """Create the object, or take over a dead job's."""
        if self._put(IfNoneMatch="*"):
            return
        found = self._get()
        if found is None:  # it was released just now
            if self._put(IfNoneMatch="*"):
                return
            raise RunFolderError(_in_use(self._folder, "another job"))
        job, tag, age_s = found
        if not (age_s > STALE_S or _is_dead(job)) or not self._put(IfMatch=tag):
            raise RunFolderError(
                f"{_in_use(self._folder, _describe_job(job))}. It was heard of {age_s:.0f} s ago; a dead job's folder is free"
                f" again {STALE_S:.0f} s after it was last heard of"
            )

    def beat(self, stop: threading.Event, leave: Callable[[str], None]) -> None:
        """Rewrite the object until `stop`; call `leave` if another job has taken it over."""
        while not stop.wait(BEAT_S):
            try:
                kept = self._put(IfMatch=self._tag)
            except OSError as error:  # S3 does not answer: the next beat may succeed; if none does, the lock goes stale
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
        """Write the object; False if the condition does not hold."""
        self._job["beat"] += 1  # so that each write gets a different tag
        try:
            answer = self._fs.call_s3("put_object", Body=json.dumps(self._job).encode(), **self._at, **condition)
        except FileNotFoundError:  # no object is left that could match
            return False
        except OSError as error:
            if not _is_unmet(error):
                raise
            # The client retries a request whose answer was lost, and the retry fails on what the first try wrote.
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
    """The scope in which a process id is valid: this boot of this machine, and the container's PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}" if boot.exists() else ""


def _is_dead(job: dict[str, Any]) -> bool:
    """Whether a job ran where this one runs and has ended; nothing is known of other machines."""
    try:
        return job["place"] == _place() != "" and not Path(f"/proc/{int(job['process'])}").exists()
    except (KeyError, ValueError, TypeError):
        return False


def _is_unmet(error: OSError) -> bool:
    """Whether S3 refused a request because of its condition, and not for another reason."""
    answer = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code") in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def _read_note(holder: Path) -> str:
    try:
        return _describe_job(json.loads(holder.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # the job is just starting or ending
        return "another job"


def _describe_job(job: dict[str, Any]) -> str:
    try:
        return f"process {job['process']} on {job['host']} since {job['since']} ({job['command']})"
    except KeyError:
        return "another job"
