"""Settings of the Ray cluster."""

from offsft.strict import Strict


class Cluster(Strict):
    address: str | None = None
    """Ray cluster to join, for example `auto`; unset: the one in RAY_ADDRESS, else a local Ray is started."""
    dashboard: bool = False
    """Start the Ray dashboard with a local Ray (http://127.0.0.1:8265)."""
