"""The token that a Ray cluster may want."""

import os
from pathlib import Path


def bring_token() -> None:
    """Have Ray show this user's token, where there is one, to whichever cluster this process joins. Call before importing ray.

    From release 2.60 on, Ray gives every cluster that is started on a machine a token (~/.ray/auth_token), but shows it
    unasked only to a cluster that it found itself, not to one named by its address. A cluster that wants no token
    takes no notice of one.
    """
    default = Path.home() / ".ray" / "auth_token"
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if given or default.exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
