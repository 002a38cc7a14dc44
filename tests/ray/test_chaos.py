"""A short run of `benchmarks.chaos`: a cluster of four nodes, random kills, and nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.last]


def test_whatever_is_killed_each_problem_is_there_once():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment["RAY_worker_niceness"] = "0"
    command = [sys.executable, "-m", "benchmarks.chaos", "--faults", "3", "--problems", "150", "--seed", "29", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["faults"] == {"actor": 1, "engine": 1, "node": 1}, "by this seed"
    assert told["expected"] >= 150
    assert (told["lost"], told["duplicated"], told["quarantined"], told["equal"]) == (0, 0, 0, True)
