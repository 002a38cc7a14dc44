"""A local Ray that is late is started again; what else goes wrong at its start is not hidden."""

import pytest
import ray

from offsft.errors import ConfigError
from offsft.runtime.session import start_ray

LATE = "The current node timed out during startup. This could happen because the GCS has become overloaded."


@pytest.fixture
def starts(monkeypatch):
    """The options of each start; the next one fails with the last of the errors, if there is one."""
    seen, errors = [], []

    def init(**options):
        seen.append(options)
        if errors:
            raise errors.pop()

    monkeypatch.setattr(ray, "init", init)
    return seen, errors


def test_a_late_ray_is_started_again(starts):
    seen, errors = starts
    errors += [Exception(LATE), Exception(LATE)]
    start_ray(num_cpus=4)
    assert seen == [{"address": "local", "num_cpus": 4}] * 3


def test_a_ray_that_is_always_late_is_one_clear_error(starts):
    _, errors = starts
    errors += [Exception(LATE)] * 9
    with pytest.raises(ConfigError, match=r"within the 30 s that it gives itself, 4 times in a row.*cluster\.address"):
        start_ray()


def test_another_failure_is_not_repeated(starts):
    seen, errors = starts
    errors += [ValueError("no such option")]
    with pytest.raises(ValueError, match="no such option"):
        start_ray(wrong=1)
    assert len(seen) == 1
