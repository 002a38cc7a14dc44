"""python -m jobs.deploy model=FOLDER [name=NAME] [address=ADDRESS]

Serve other weights under the name of a served model (the default one if no name is given) while requests go on: none fails,
and none mixes two models. Going back is the same command with the old folder. `address` is the Ray cluster's; without it
RAY_ADDRESS, else the one on this machine.
"""

import sys

from jobs.arguments import parsed, reported


def _deploy(settings: dict[str, str]) -> None:
    import os

    from offsft.config import Cluster
    from offsft.errors import ConfigError
    from offsft.ray_session import ray_session
    from services import control

    if "model" not in settings:
        raise ConfigError("model is not set; add model=FOLDER, for example model=runs/demo/model")
    address = settings.get("address") or os.environ.get("RAY_ADDRESS") or "auto"
    with ray_session(Cluster(address=address)):
        control.switch(settings["model"], settings.get("name"), lambda line: print(line, flush=True))


if __name__ == "__main__":
    found = parsed(sys.argv[1:], str(__doc__), {"model", "name", "address"})[1]
    reported(lambda: _deploy(found))
