"""Where engines and training processes go in a cluster, and what a job waits for that the cluster does not have."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from offsft.config import Engine, Train


@contextmanager
def engine_places(engine: Engine) -> Iterator[dict[str, Any]]:
    """The arguments of `map_batches` that place the engines' actors; what they reserve is given back with the block.

    An engine that spreads over several GPUs gets a placement group, one GPU a bundle, on as few nodes as possible: its
    actor lies in the first bundle, and vLLM puts a worker into each.
    """
    if engine.tensor_parallel == 1:
        yield {"num_cpus": engine.cpus, "num_gpus": engine.gpus, "label_selector": dict(engine.node_labels) or None}
        return
    groups: list[Any] = []
    try:
        yield {"num_cpus": engine.cpus, "num_gpus": 0, "ray_remote_args_fn": _place_in_group(engine, groups)}
    finally:
        for group in groups:
            ray.util.remove_placement_group(group)


def _place_in_group(engine: Engine, groups: list[Any]) -> Callable[[], dict[str, Any]]:
    """Called by Ray Data for each actor that it starts."""

    def place() -> dict[str, Any]:
        bundles = [{"GPU": 1.0, "CPU": float(engine.cpus)}] + [{"GPU": 1.0}] * (engine.tensor_parallel - 1)
        labels: dict[str, Any] = {"bundle_label_selector": [dict(engine.node_labels)] * len(bundles)}
        group = ray.util.placement_group(bundles, strategy="PACK", **(labels if engine.node_labels else {}))
        groups.append(group)
        return {
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            )
        }

    return place


@dataclass(frozen=True, slots=True)
class Need:
    """So many processes with these resources each, on nodes with these labels."""

    copies: int
    each: dict[str, float]
    labels: dict[str, str]
    on_one_node: bool = True
    """Whether one process must find all of its resources on a single node."""

    @classmethod
    def of_engines(cls, engine: Engine) -> "Need":
        each = {"GPU": engine.gpus, "CPU": engine.cpus}
        return cls(engine.actors, each, engine.node_labels, on_one_node=engine.tensor_parallel == 1)

    @classmethod
    def of_training(cls, train: Train) -> "Need":
        return cls(train.workers, {"GPU": train.gpus_per_worker, "CPU": train.cpus_per_worker}, train.node_labels)


def shortage(need: Need) -> str | None:
    """`needs 4 GPUs, the cluster has 2`, or None where the cluster has all that is needed, in use or not."""
    nodes = [node for node in ray.nodes() if node["Alive"] and need.labels.items() <= node["Labels"].items()]
    where = "the cluster has"
    if need.labels:
        where = f"nodes labelled {', '.join(f'{name}={value}' for name, value in need.labels.items())} have"
    for name, each in need.each.items():
        wanted, there = need.copies * each, sum(node["Resources"].get(name, 0.0) for node in nodes)
        if wanted > there:
            return f"needs {_count(wanted, name)}, {where} {there:g}"
    room = sum(_fitting(node["Resources"], need.each) for node in nodes)
    if need.on_one_node and room < need.copies:
        each = " and ".join(_count(amount, name) for name, amount in need.each.items() if amount)
        return f"needs {need.copies} times {each} on one node, {where} room for {room}"
    return None


def waiting(need: Need, placed: int) -> str | None:
    """What is missing, as `shortage` says it, or that others use what there is while fewer than needed have a place.

    `placed` counts those that found a place so far: a node that is lost takes some of them with it.
    """
    if short := shortage(need):
        return short + _asked()
    if placed >= need.copies:
        return None
    free = ray.available_resources()
    for name, each in need.each.items():
        if free.get(name, 0.0) < each:
            wanted = (need.copies - placed) * each
            return f"needs {_count(wanted, name)} more, and the cluster has {free.get(name, 0.0):g} free"
    return None


def _asked() -> str:
    """`, the autoscaler asked for 2 nodes`: those on their way, and those that could not be had; nothing without one."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except Exception:  # of Ray's own kinds; this is a word more in a message, and no reason to end a job
        return ""
    coming = sum(launch.count for launch in status.pending_launches) + len(status.pending_nodes)
    failed = sum(launch.count for launch in status.failed_launches)
    asked = f", the autoscaler asked for {coming} node{'' if coming == 1 else 's'}" if coming else ""
    return asked + (f", {failed} nodes that the autoscaler asked for could not be had" if failed else "")


def _fitting(node: dict[str, float], each: dict[str, float]) -> int:
    return min((int(node.get(name, 0.0) / amount) for name, amount in each.items() if amount), default=0)


def _count(amount: float, resource: str) -> str:
    return f"{amount:g} {resource}" + ("" if amount == 1 else "s")
