"""python -m jobs.deploy model=FOLDER [name=NAME] [address=ADDRESS]
python -m jobs.deploy adapter=FOLDER name=NAME [base=MODEL] [address=ADDRESS]

Put other weights behind a served model while requests go on. `name` is the served model's, by default the default one.
No request fails, and none mixes two models. To go back, run the same command with the old folder.
With `adapter`, a LoRA adapter (`train.lora.keep_adapter`) is served as the model `name` on the engine of `base`, by default
the default model's; the same command with another folder replaces it, and `adapter=` with a name takes it away.
`address` is the Ray cluster's; without it RAY_ADDRESS, else the cluster on this machine.
"""

from pathlib import Path

from . import import_services
from .cli import run_plain


def _deploy(path: Path | None, settings: dict[str, str]) -> None:
    import os

    from offsft.config import ClusterConfig
    from offsft.errors import ConfigError
    from offsft.runtime.console import Console
    from offsft.runtime.session import ray_session

    if path is not None:
        raise ConfigError(f"{path}: this job takes no file; for its weights, write model={path}")
    if ("model" in settings) == ("adapter" in settings):
        raise ConfigError("give model=FOLDER, for example model=runs/demo/model, or else adapter=FOLDER and its name=")
    if "adapter" in settings and not settings.get("name"):
        raise ConfigError("adapter needs a name, by which clients ask for it: add name=NAME")
    if "base" in settings and "model" in settings:
        raise ConfigError("base is the model that an adapter=... belongs to; leave it out with model=...")
    address = settings.get("address") or os.environ.get("RAY_ADDRESS") or "auto"
    with ray_session(ClusterConfig(address=address)):
        console, deploy, name = Console(), import_services("deploy"), settings.get("name")
        if "adapter" in settings:
            deploy.switch_adapter(settings["adapter"], name, settings.get("base"), console.say)
        else:
            deploy.switch(settings["model"], name, console.say, console.progress)


if __name__ == "__main__":
    run_plain(_deploy, str(__doc__), ("model", "adapter", "base", "name", "address"))
