"""The token that a Ray cluster may want."""

import os
import sys
from pathlib import Path


def bring_token() -> None:
    """Have Ray show this user's token, where there is one, to whichever cluster this process joins. Call before importing ray.

    From release 2.60 on, Ray gives every cluster that is started on a machine a token (~/.ray/auth_token), but shows it
    unasked only to a cluster that it found itself, not to one named by its address. A cluster that wants no token
    takes no notice of one. A process that has imported Ray has made up its mind: told now, it would start a local
    cluster that wants a token which this process does not show.
    """
    if "ray" in sys.modules:
        return
    default = Path.home() / ".ray" / "auth_token"
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given or default.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
