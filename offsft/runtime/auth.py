"""The token that a Ray cluster may require."""

import os
import sys
from pathlib import Path


def bring_token() -> None:
    """Make Ray send this user's token, if any, to each cluster that this process joins; call before importing ray.

    From release 2.60 on, Ray gives every cluster that is started on a machine a token (~/.ray/auth_token). By default
    it sends the token only to a cluster that it found itself, not to one given by its address. A cluster that requires
    no token ignores it. Ray reads the mode on import: if it is set later, Ray would start a local cluster that requires
    a token which this process does not send.
    """
    if "ray" in sys.modules:
        return
    default = Path.home() / ".ray" / "auth_token"
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given or default.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
