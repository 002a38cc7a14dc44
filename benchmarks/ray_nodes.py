"""Nodes of a `ray.cluster_utils.Cluster` on this machine."""

from typing import Any

TRIES = 5


def add_node(cluster: Any, **node: Any) -> Any:
    """The cluster's `add_node` with retries: on a busy machine a node may not be up within Ray's 30 s."""
    for _ in range(TRIES - 1):
        try:
            return cluster.add_node(**node)
        except Exception:  # Ray raises no narrower type for it
            continue
    return cluster.add_node(**node)
