"""Placement of engines and training processes in a cluster, and the missing resources that a job waits for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from offsft.config import EngineConfig, TrainConfig

_READERS = 4
"""Files read at once on one node."""


def drivers_node() -> NodeAffinitySchedulingStrategy:
    """Places a task or an actor on the node of the process that calls this."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def reading_here() -> dict[str, Any]:
    """The arguments of `read_datasource` that read on the caller's node: no other may see the files on its disk."""
    node = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    return {"label_selector": node, "num_cpus": 0, "concurrency": _READERS}  # no CPUs, as a head has none


@contextmanager
def engine_places(engine: EngineConfig) -> Iterator[dict[str, Any]]:
    """The arguments of `map_batches` that place the engines' actors; their reservations are released after the block.

    An engine that spans several GPUs gets a placement group, one GPU per bundle, on as few nodes as possible. Its
    actor runs in the first bundle, and vLLM puts a worker into each.
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


def engine_bundles(engine: EngineConfig) -> list[dict[str, float]]:
    """The bundles of one engine, one per GPU; the first is for the process that holds the engine, with its CPUs."""
    cpus = {"CPU": float(engine.cpus)}
    if not engine.gpus:
        return [cpus]
    if engine.tensor_parallel == 1:
        return [{"GPU": float(engine.gpus), **cpus}]
    return [{"GPU": 1.0, **cpus}, *({"GPU": 1.0} for _ in range(engine.tensor_parallel - 1))]


def _place_in_group(engine: EngineConfig, groups: list[Any]) -> Callable[[], dict[str, Any]]:
    """A function that Ray Data calls for each actor that it starts."""

    def place() -> dict[str, Any]:
        bundles = engine_bundles(engine)
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
    """The resources of a group of processes: how many, what each needs, and the labels of their nodes."""

    copies: int
    each: dict[str, float]
    labels: dict[str, str]
    on_one_node: bool = True
    """Whether one process must find all of its resources on a single node."""

    @classmethod
    def of_intake(cls) -> "Need":
        return cls(1, {"CPU": 1.0}, {})

    @classmethod
    def of_engines(cls, engine: EngineConfig) -> "Need":
        each = {"GPU": engine.gpus, "CPU": engine.cpus}
        return cls(engine.actors, each, engine.node_labels, on_one_node=engine.tensor_parallel == 1)

    @classmethod
    def of_training(cls, train: TrainConfig) -> "Need":
        return cls(train.workers, {"GPU": train.gpus_per_worker, "CPU": train.reserved_cpus}, train.node_labels)


def shortage(need: Need) -> str | None:
    """The shortage, as `needs 4 GPUs, the cluster has 2`, or None if the cluster has enough, in use or not."""
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
    """The `shortage`, or the resources that others use while fewer processes than needed are placed; else None.

    `placed` counts the processes placed so far; it drops when a node is lost.
    """
    if short := shortage(need):
        return short + _autoscaler_note()
    if placed >= need.copies:
        return None
    free = ray.available_resources()
    for name, each in need.each.items():
        if free.get(name, 0.0) < each:
            wanted = (need.copies - placed) * each
            return f"needs {_count(wanted, name)} more, and the cluster has {free.get(name, 0.0):g} free"
    return None


def _autoscaler_note() -> str:
    """`, the autoscaler asked for 2 nodes`: pending and failed launches; empty without an autoscaler."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except Exception:  # Ray's own types; a missing detail of a message must not end a job
        return ""
    coming = sum(launch.count for launch in status.pending_launches) + len(status.pending_nodes)
    failed = sum(launch.count for launch in status.failed_launches)
    asked = f", the autoscaler asked for {coming} node{'' if coming == 1 else 's'}" if coming else ""
    return asked + (f", {failed} nodes that the autoscaler asked for could not be had" if failed else "")


def _fitting(node: dict[str, float], each: dict[str, float]) -> int:
    return min((int(node.get(name, 0.0) / amount) for name, amount in each.items() if amount), default=0)


def _count(amount: float, resource: str) -> str:
    return f"{amount:g} {resource}" + ("" if amount == 1 else "s")
