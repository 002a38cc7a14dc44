"""Two jobs on one folder: the second is refused and told of the first; a dead one's lock is taken over."""

import subprocess
import sys

import pytest

from offsft.errors import RunFolderError
from offsft.run_lock import held

HOLDER = """
import sys, time
from pathlib import Path
from offsft.run_lock import held
with held(Path(sys.argv[1])):
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
        held(tmp_path),
    ):
        pass
    assert (tmp_path / "lock.json").exists(), "the first one's note must stay"


def test_the_lock_of_a_killed_job_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    with held(tmp_path):
        assert (tmp_path / "lock.json").exists()
    with held(tmp_path):  # and is free again after a job that ended
        pass
    assert not (tmp_path / "lock.json").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="the folder cannot be written"), held(tmp_path / "file" / "run"):
        pass
