"""A full disk is distinguished from other faults, however deeply it is wrapped."""

import errno

import pyarrow as pa
import pytest

from offsft.storage.faults import disk_full


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


class WorkersFailed(Exception):
    """A fake of Ray Train's error, which maps ranks to the workers' errors."""

    def __init__(self, *failures):
        super().__init__("2 workers failed")
        self.worker_failures = dict(enumerate(failures))


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    pa.ArrowInvalid("IOError: Error writing bytes to file. Detail: [errno 28] No space left on device"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
]


@pytest.mark.parametrize("fault", FULL, ids=lambda fault: type(fault).__name__)
def test_a_full_disk_is_found_wherever_it_is_wrapped(fault):
    for error in (
        fault,
        raised(ValueError("task failed"), fault),
        WorkersFailed(KeyError("x"), raised(ValueError(), fault)),
    ):
        assert "the disk is full" in str(disk_full(error))


def test_other_faults_are_left_alone():
    for error in (OSError(errno.EACCES, "Permission denied"), WorkersFailed(KeyError("x")), ValueError("disk")):
        assert disk_full(error) is None
