"""Threads of a training process on a CPU: all cores that its node has for it."""

import os

import ray
import torch


def use_cores(cpus_per_worker: float | None, workers_here: int) -> None:
    """Set torch's threads. Ray has set them to the cores that the process reserves, by default one.

    One process with all cores is faster than one per core: it has no copy of the weights to read and no gradients to
    exchange. Without `cpus_per_worker` the node's cores are shared by its `workers_here` training processes.
    """
    torch.set_num_threads(threads_for(cpus_per_worker, workers_here, _cores()))


def threads_for(cpus_per_worker: float | None, workers_here: int, cores: int) -> int:
    return max(1, int(cores / workers_here if cpus_per_worker is None else cpus_per_worker))


def _cores() -> int:
    """The cores that this process may run on, at most those that Ray gives out on this node."""
    here = ray.get_runtime_context().get_node_id()
    told = next((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["NodeID"] == here), 0.0)
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, int(told) or there)
