"""Training on the CPU uses all cores of its node, shared by the processes there."""

import pytest

from offsft.config import TrainConfig
from offsft.train.threads import threads_for


@pytest.mark.parametrize(
    ("set_cpus", "workers", "cores", "threads"),
    [(None, 1, 2, 2), (None, 2, 2, 1), (None, 3, 64, 21), (None, 4, 2, 1), (8, 1, 64, 8), (0.5, 1, 64, 1)],
)
def test_threads(set_cpus, workers, cores, threads):
    assert threads_for(set_cpus, workers, cores) == threads


def test_one_core_is_reserved_unless_told():
    assert TrainConfig().reserved_cpus == 1
    assert TrainConfig(cpus_per_worker=3).reserved_cpus == 3
