"""A waiting job's report about the autoscaler, from Ray's own records."""

import pytest
import ray
from ray.autoscaler.v2 import sdk
from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest

from offsft.runtime import placement

NEED = placement.Need(4, {"GPU": 1.0}, {})
NODE = {"Alive": True, "Labels": {}, "Resources": {"GPU": 2.0}}


def launch(count, state=LaunchRequest.Status.PENDING):
    return LaunchRequest("g6.xlarge", "gpu", count, state, 0)


@pytest.fixture
def told(monkeypatch):
    """A function from the autoscaler's status, or the error of asking for it, to the job's message."""
    monkeypatch.setattr(ray, "nodes", lambda: [NODE])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: type("Context", (), {"gcs_address": "127.0.0.1:1"}))

    def waiting(status):
        def answer(_):
            if isinstance(status, Exception):
                raise status
            return status

        monkeypatch.setattr(sdk, "get_cluster_status", answer)
        return placement.waiting(NEED, 0)

    return waiting


def test_a_waiting_job_says_what_the_autoscaler_asked_for(told):
    short = "needs 4 GPUs, the cluster has 2"
    assert told(ClusterStatus()) == short
    assert told(RuntimeError("no such service")) == short
    assert told(ClusterStatus(pending_launches=[launch(2)])) == f"{short}, the autoscaler asked for 2 nodes"
    failed = [launch(3, LaunchRequest.Status.FAILED)]
    assert (
        told(ClusterStatus(failed_launches=failed))
        == f"{short}, 3 nodes that the autoscaler asked for could not be had"
    )
    both = ClusterStatus(pending_launches=[launch(1)], failed_launches=failed)
    assert (
        told(both)
        == f"{short}, the autoscaler asked for 1 node, 3 nodes that the autoscaler asked for could not be had"
    )
