"""python -m jobs.serve [CONFIG.yaml] [model=FOLDER] [host=ADDRESS] [port=NUMBER] [ingress=python]

Serve models over HTTP until a signal comes: services/local.yaml (or CONFIG.yaml, in the Ray Serve schema), and beside its
model a trained one, which is then the default: model=FOLDER, or else what `make demo` left in runs/demo/model; `model=` for none.
Joins the Ray cluster of RAY_ADDRESS, or starts a local one, where the HAProxy that comes with Ray takes the requests in;
ingress=python: Ray's own proxy does. docs/serving.md has the difference, the API keys and the limits.
"""

import sys
from pathlib import Path
from typing import Any

from jobs.arguments import parsed, reported

_ROOT = Path(__file__).resolve().parent.parent
_DEMO = _ROOT / "runs" / "demo" / "model"


def _serve(config_path: Path, settings: dict[str, str]) -> None:
    import os
    import signal
    import socket
    import threading

    from services import ingress

    chosen = ingress.choose(settings.get("ingress"))

    import ray
    from ray import serve

    from offsft.config import Cluster
    from offsft.console import Console
    from offsft.errors import ConfigError
    from offsft.ray_session import ray_session
    from services import control
    from services.keys import ENVIRONMENT, Keys, refuse_open_door

    console = Console()
    config = control.read_config(config_path)
    gateway: dict[str, Any] = next((a for a in config["applications"] if a["name"] == control.GATEWAY), {})
    http = {"host": "127.0.0.1", "port": 8000, **config.get("http_options", {})}
    http |= {"host": settings.get("host", http["host"]), "port": _port(settings.get("port", http["port"]))}
    if os.environ.get("RAY_ADDRESS") and os.environ.get(ENVIRONMENT):
        raise ConfigError(f"{ENVIRONMENT} does not reach a Ray cluster that runs already; give the gateway a keys_file")
    if chosen == "haproxy" and http.get("ssl_keyfile"):
        raise ConfigError(
            "Ray's HAProxy speaks no TLS: add ingress=python, or put TLS in front and leave ssl_keyfile out"
        )
    refuse_open_door(http["host"], Keys(gateway.get("args", {}).get("keys_file")))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http["host"], http["port"]))
        except OSError as error:
            raise ConfigError(
                f"{http['host']}:{http['port']} cannot be used: {error.strerror}; give port=..."
            ) from None
    demo = str(_DEMO) if (_DEMO / "config.json").exists() else ""
    trained = settings.get("model", demo)
    if trained:
        config = control.with_model(config, "trained", trained)
    config["http_options"] = http
    names = [app["name"] for app in config["applications"]]

    stop = threading.Event()
    with ray_session(Cluster()):
        serve.start(
            http_options=http,
            proxy_location=config.get("proxy_location", "EveryNode"),
            logging_config=config.get("logging_config"),
        )
        console.say(f"starting {', '.join(names)}")
        try:
            control.submit(config)
            control.wait_until_running(names)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            address = f"http://{http['host']}:{http['port']}"
            cluster = ray.get_runtime_context().gcs_address
            console.say(f"serving on {address} (documentation: {address}/docs; Ray: {cluster}). Ctrl-C ends it")
            stop.wait()
            console.say("finishing what is in work")
            # The gateway first: its requests still need the engines.
            serve.delete(control.GATEWAY)
        finally:
            serve.shutdown()


def _port(value: Any) -> int:
    from offsft.errors import ConfigError

    if not str(value).isdigit() or not 0 < int(value) < 65536:
        raise ConfigError(f"port={value} is no port; give a number up to 65535")
    return int(value)


if __name__ == "__main__":
    paths, found = parsed(sys.argv[1:], str(__doc__), {"model", "host", "port", "ingress"})
    reported(lambda: _serve(paths[0] if paths else _ROOT / "services" / "local.yaml", found))
