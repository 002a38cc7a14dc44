"""Whether a folder holds each problem once: in the output or, if it killed its engines, in quarantine."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.data.quarantine import write_poison
from offsft.inference.batch_job import EngineJob


@pytest.fixture
def folder(tmp_path):
    def written(*files, poison=()):
        output = tmp_path / "output"
        output.mkdir()
        for number, ids in enumerate(files):
            pq.write_table(pa.table({"id": ids}), output / f"{number}.parquet")
        for problem in poison:
            write_poison(tmp_path / "quarantine", problem, {"reason": "poison"})
        return SimpleNamespace(output=output, quarantine=tmp_path / "quarantine")

    return written


@pytest.mark.parametrize(
    ("files", "poison", "total", "complete"),
    [
        ([["a", "b"], ["c"]], [], 3, True),
        ([["a", "b"]], [], 3, False),
        ([["a", "b"], ["b"]], [], 3, False),  # the right number of rows, but one twice
        ([["a", "b"], ["c", "c"]], [], 3, False),
        ([["a", "b", "c"]], [], 2, False),  # one that is not in the input
        ([["a", "b"]], ["c"], 3, True),
        ([["a", "b", "c"]], ["c"], 3, True),  # finished by an engine that was considered dead
        ([["a", "b"]], ["b"], 3, False),
        ([["gsm8k-1", "a-longer-suite-12"]], [], 2, True),
        ([], ["a"], 1, True),
        ([], [], 1, False),
    ],
)
def test_each_problem_once(folder, files, poison, total, complete):
    assert EngineJob._complete(folder(*files, poison=poison), total) is complete


def test_a_half_written_file_holds_nothing(folder):
    job = folder(["a", "b"])
    (job.output / "half.parquet").write_bytes(b"PAR1 and no more")
    assert EngineJob._complete(job, 2)
    assert not EngineJob._complete(job, 3)
