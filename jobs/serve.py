"""python -m jobs.serve [CONFIG.yaml] [model=FOLDER] [host=ADDRESS] [port=NUMBER] [ingress=python]

Serve models over HTTP until a signal comes. The config is services/local.yaml, or CONFIG.yaml in the Ray Serve schema.
In addition to its model a trained one is served, which is then the default: model=FOLDER, or else the result of
`make demo` in runs/demo/model; `model=` for none.
Joins the Ray cluster of RAY_ADDRESS, or starts a local one. In a local one the HAProxy that comes with Ray takes the
requests, or with ingress=python Ray's own proxy. docs/serving.md explains the difference, the API keys and the limits.
"""

from pathlib import Path

from . import import_services
from .cli import run_plain

_CONFIG = Path(__file__).resolve().parent.parent / "services" / "local.yaml"
_DEMO = Path("runs/demo/model")


def _serve(config: Path | None, settings: dict[str, str]) -> None:
    ingress = import_services("ingress").choose(settings.get("ingress"))  # before Ray is imported
    demo = {"model": str(_DEMO)} if (_DEMO / "config.json").is_file() else {}
    import_services("run").run(config or _CONFIG, demo | settings, ingress=ingress)


if __name__ == "__main__":
    run_plain(_serve, str(__doc__), ("model", "host", "port", "ingress"))
