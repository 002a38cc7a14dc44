"""A test that waits for a hung actor fails with the actor's stack, and Ray stays usable for the tests after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray]

TESTS = '''
import time

import pytest
import ray


@pytest.fixture(scope="module", autouse=True)
def session():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@ray.remote
class Actor:
    def sleeps_in_the_actor(self):
        time.sleep(600)

    def answers(self):
        return 1


@pytest.fixture(scope="module")
def actor():
    return Actor.remote()


def test_first(actor):
    """Starts Ray and the actor, which may take their time."""
    assert ray.get(actor.answers.remote()) == 1


@pytest.mark.timeout(5)
def test_hung(actor):
    ray.get(actor.sleeps_in_the_actor.remote())


def test_next():
    assert ray.get(Actor.remote().answers.remote()) == 1
'''


def test_the_stack_of_an_actor_that_hangs_is_in_the_failure(tmp_path):
    (tmp_path / "conftest.py").write_text("from tests.time_limit import *\n")
    (tmp_path / "test_hung.py").write_text(TESTS)
    others = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=others | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "this took more than 5 s" in done.stdout
    assert "in sleeps_in_the_actor" in done.stdout
