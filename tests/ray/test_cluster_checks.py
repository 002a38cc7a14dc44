"""Checks with clusters of their own: engines go where the recipe says, and Ray's autoscaler is asked for what is missing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.last]


def checked(name, folder):
    """The output of a check, which runs in a separate process with its own cluster."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment["RAY_worker_niceness"] = "0"
    command = [sys.executable, "-m", f"cluster.checks.{name}", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_engines_go_where_the_recipe_says_and_a_job_says_what_it_waits_for(tmp_path):
    told = checked("placement", tmp_path)
    assert {engine["labels"]["group"] for engine in told["labelled"]["engines"]} == {"spot"}
    (engine,) = told["parallel"]["engines"]
    assert [bundle["GPU"] for bundle in engine["bundles"]] == [1, 1]
    assert told["groups_left"] == 0, "the GPUs are given back when the stage ends"
    assert 1 < len(told["grown"]["engines"]) <= 3
    assert told["grown"]["problems"] == 40
    assert told["shortages"] == [
        "needs 4 GPUs, the cluster has 2",
        "needs 5 CPUs, the cluster has 4",
        "needs 3 CPUs, nodes labelled group=spot have 2",
        "needs 1 CPU, nodes labelled group=gone have 0",
        "needs 3 times 1.2 CPUs on one node, the cluster has room for 2",
        None,
    ]
    assert told["waiting"]["problems"] == 6
    assert any("needs 4 GPUs, the cluster has 2" in line for line in told["waiting"]["lines"]), told["waiting"]["lines"]


def test_the_autoscaler_is_asked_for_what_a_job_waits_for(tmp_path):
    """Ray's own autoscaler, whose nodes run on this machine."""
    told = checked("autoscaler", tmp_path)
    asked = re.compile("needs 2 GPUs, the cluster has [01], the autoscaler asked for [12] node")
    assert any(map(asked.search, told["waits"])), told["waits"]
    assert any("waiting: needs 2 GPUs" in line for line in told["lines"]), told["lines"]
    assert told["problems"] == 12
    assert sorted(told["nodes"]) == [0, 1, 1]
    assert len(told["engines"]) == 2
