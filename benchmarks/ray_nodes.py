"""Nodes of a `ray.cluster_utils.Cluster` on this machine."""

from typing import Any

TRIES = 5


def add_node(cluster: Any, **node: Any) -> Any:
    """The cluster's `add_node`, tried again: on a busy machine a node may not be up within Ray's 30 s."""
    for tries_left in reversed(range(TRIES)):
        try:
            return cluster.add_node(**node)
        except Exception:  # Ray's own, without a name
            if not tries_left:
                raise
    raise AssertionError("a last try that fails is raised")
