"""A job on four nodes with separate addresses, of which one is killed and one joins, gives the result of one node."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.networks import can_make_namespaces

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.last, pytest.mark.timeout(1800)]


@pytest.mark.needs("ip")
def test_a_job_outlives_its_engines_node_and_goes_on_where_another_joins():
    if not can_make_namespaces():
        pytest.skip("network namespaces need Linux and root")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment["RAY_worker_niceness"] = "0"
    command = [sys.executable, "-m", "cluster.checks.nodes"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as check:
        try:
            printed, log = check.communicate()
        finally:
            check.terminate()  # it ends its cluster
    assert check.returncode == 0, log[-3000:]
    told = json.loads(printed)
    assert told["equal"], "the rewrites are those of one node"
    assert (told["problems"], told["sources"]) == (24, ["expert", "guided", "self"])
    assert 0 < told["done_when_killed"] < 24
    assert told["engine_nodes"] == 2
    assert told["process_group"] == {"nodes": 2, "sum": 3.0}
    assert told["waited"] == ["needs 1 CPU, nodes labelled group=spot have 0"]
