"""Networks of a local cluster: its nodes listen on loopback addresses, or each in its own network namespace."""

import os
import shutil
import subprocess
from typing import Protocol


class Network(Protocol):
    """Addresses of the nodes, numbered from 1, the head; the client submits jobs."""

    dashboard: str
    """Address that the head's dashboard listens on."""
    namespaces: str | None
    """Prefix of its namespaces' names; None if it has none."""

    def address(self, node: int) -> str: ...

    def inside(self, node: int) -> list[str]:
        """The prefix of a node's command; creates the node's network if needed."""
        ...

    def client(self) -> list[str]:
        """The prefix of a client's command."""
        ...


class Loopback:
    """One loopback address per node. (Ray would replace 127.0.0.1 by the machine's own address, and listen there.)"""

    dashboard = "127.0.0.1"
    namespaces: str | None = None

    def address(self, node: int) -> str:
        return f"127.77.0.{node}"

    def inside(self, node: int) -> list[str]:
        return []

    def client(self) -> list[str]:
        return []


_CLIENT = 200
"""The client's number: nodes have smaller ones."""


class Namespaces:
    """A namespace and an address per node and for the client, joined by a bridge in one more namespace. The machine's
    own network is not touched. Needs Linux and root."""

    dashboard = "10.77.0.1"

    def __init__(self, name: str) -> None:
        self.namespaces: str | None = name

    def address(self, node: int) -> str:
        return f"10.77.0.{node}"

    def inside(self, node: int) -> list[str]:
        bridge, space = f"{self.namespaces}-net", f"{self.namespaces}-{node}"
        there = _names()
        if bridge not in there:
            _ip("netns", "add", bridge)
            _ip("-n", bridge, "link", "add", "bridge", "type", "bridge")
            _ip("-n", bridge, "link", "set", "bridge", "up")
        if space not in there:
            _ip("netns", "add", space)
            _ip("-n", space, "link", "add", "node", "type", "veth", "peer", "name", f"node-{node}", "netns", bridge)
            _ip("-n", bridge, "link", "set", f"node-{node}", "master", "bridge", "up")
            _ip("-n", space, "address", "add", f"{self.address(node)}/24", "dev", "node")
            for device in ("lo", "node"):
                _ip("-n", space, "link", "set", device, "up")
            # Leads nowhere, but a process finds its own address by looking which one it would go out by.
            _ip("-n", space, "route", "add", "default", "via", self.address(254))
        return ["ip", "netns", "exec", space]

    def client(self) -> list[str]:
        return self.inside(_CLIENT)


def can_make_namespaces() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and _try_namespaces()


def delete(name: str) -> None:
    """Delete the namespaces whose names begin with `name`; their links go with them."""
    for space in _names():
        if space.startswith(f"{name}-"):
            _ip("netns", "delete", space)


def _try_namespaces() -> bool:
    """Whether this process may create namespaces; root in a container may not."""
    name = f"offsft-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode == 0:
        _ip("netns", "delete", name)
    return made.returncode == 0


def _names() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cluster: ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
