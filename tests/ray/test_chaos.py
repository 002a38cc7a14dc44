"""A short run of `benchmarks.chaos`: a cluster of four nodes, things killed at random, and nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray]


def test_whatever_is_killed_each_problem_is_there_once():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "benchmarks.chaos", "--faults", "5", "--problems", "300", "--seed", "0", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["faults"] == {"actor": 1, "engine": 2, "node": 2}, "by this seed"
    assert told["expected"] >= 300
    assert (told["lost"], told["duplicated"], told["quarantined"], told["equal"]) == (0, 0, 0, True)
