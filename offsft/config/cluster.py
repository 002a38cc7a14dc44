"""Settings of the Ray cluster."""

from typing import Annotated

from pydantic import Field

from offsft.config.base import PathText, Strict

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")]
"""Name or value of a label that a node was started with."""


class ClusterConfig(Strict):
    address: str | None = None
    """Ray cluster to join, for example `auto`; unset: the one in RAY_ADDRESS, else a local Ray is started."""
    dashboard: bool = False
    """Start the Ray dashboard with a local Ray (http://127.0.0.1:8265)."""
    storage: PathText | None = None
    """Folder on shared storage mounted on every node, or s3:// URL, that holds the relative `run` of a submitted job; unset: OFFSFT_STORAGE of the node."""
