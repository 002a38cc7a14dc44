"""Connects the training processes over the network that Ray's nodes use, and starts their reports of what they do."""

import os
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

from offsft.runtime.console import output_to_file
from offsft.storage.paths import at
from offsft.train.phases import start_pulse


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface with the address, or None if there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None


def _choose_interface() -> None:
    """Make gloo listen where the other nodes can reach it; runs in a training process before it connects.

    By default gloo takes the address that the host name resolves to, and in /etc/hosts that is often a loopback one. A
    user's setting is kept. NCCL needs no help: it skips loopback.
    """
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def _begin_work(rank: int, watch: Any, stall_s: float, logs: str) -> None:
    output_to_file(at(logs) / f"train-{rank}.log")
    start_pulse(watch, rank, stall_s)


class _OnRaysNetwork(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray provides the class through a property
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_choose_interface)
        if isinstance(backend_config, ProcessGroup) and backend_config.watch is not None:
            watched = (backend_config.watch, backend_config.stall_s, backend_config.logs)
            # Before the processes connect, which is the first thing that they wait for.
            ray.get([worker_group.execute_single_async(i, _begin_work, i, *watched) for i in range(len(worker_group))])
        super().on_start(worker_group, backend_config)


@dataclass
class ProcessGroup(TorchConfig):
    """Ray Train's set-up of torch.distributed, with the interface chosen on each node.

    If there is a `watch`, each process reports to it, and its output goes to a file in `logs`.
    """

    watch: Any = None
    stall_s: float = float("inf")
    """Seconds without a sign of life after which the processes end."""
    logs: str = ""

    @property
    def backend_cls(self) -> type:
        return _OnRaysNetwork
