"""How the training processes find each other: over the network that Ray's nodes use."""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface that has the address, or None where none has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None


def _choose_interface() -> None:
    """In a training process, before it connects: gloo listens where the other nodes can reach it.

    By itself gloo takes the address that the host's name resolves to, and in /etc/hosts that is often a loopback one.
    What the user has set stays. NCCL needs no help: it passes loopback over.
    """
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


class _OnRaysNetwork(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray gives the class by a property
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_choose_interface)
        super().on_start(worker_group, backend_config)


class ProcessGroup(TorchConfig):
    """Ray Train's set-up of torch.distributed, with the interface chosen on each node."""

    @property
    def backend_cls(self) -> type:
        return _OnRaysNetwork
