"""A job on four nodes with an address each, of which one is killed and one joins: as on one node."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.networks import can_make_namespaces

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray]


def test_a_job_outlives_its_engines_node_and_goes_on_where_another_joins():
    if not can_make_namespaces():
        pytest.skip("network namespaces need Linux, root and ip (iproute2)")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "tests.ray.nodes_check"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as check:
        try:
            printed, log = check.communicate(timeout=600)
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
