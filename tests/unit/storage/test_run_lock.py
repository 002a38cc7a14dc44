"""Two jobs on one folder: the second is refused with the first one's name; a dead job's lock is taken over."""

import subprocess
import sys

import pytest

from offsft.errors import RunFolderError
from offsft.storage.run_lock import lock_run

HOLDER = """
import sys, time
from pathlib import Path
from offsft.storage.run_lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_job_is_told_who_holds_the_folder(tmp_path, holder):
    with (
        pytest.raises(
            RunFolderError, match=rf"is in use by process {holder.pid} on .+ since .+; wait for it or end it"
        ),
        lock_run(tmp_path),
    ):
        pass
    assert (tmp_path / "lock.json").exists(), "the first one's note must stay"


def test_the_lock_of_a_killed_job_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    with lock_run(tmp_path):
        assert (tmp_path / "lock.json").exists()
    with lock_run(tmp_path):  # free again after the job has ended
        pass
    assert not (tmp_path / "lock.json").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="the folder cannot be written"), lock_run(tmp_path / "file" / "run"):
        pass
