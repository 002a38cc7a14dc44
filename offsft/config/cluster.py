"""Settings of the Ray cluster."""

from typing import Annotated

from pydantic import Field

from offsft.strict import Strict

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")]
"""Name or value of a label that a node was started with."""


class Cluster(Strict):
    address: str | None = None
    """Ray cluster to join, for example `auto`; unset: the one in RAY_ADDRESS, else a local Ray is started."""
    dashboard: bool = False
    """Start the Ray dashboard with a local Ray (http://127.0.0.1:8265)."""
    storage: str | None = None
    """Folder on a disk that all nodes see, or s3:// URL, in which the relative `run` of a submitted job lies; unset: OFFSFT_STORAGE of the node."""
