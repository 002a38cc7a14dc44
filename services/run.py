"""Runs the services of a Serve config until a signal. Imports Ray, so `ingress.choose` must run before this import."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import ray
from ray import serve

from offsft.config import ClusterConfig
from offsft.errors import ConfigError
from offsft.runtime.console import Console
from offsft.runtime.session import ray_session

from . import deploy
from .auth import ENVIRONMENT, Keys, refuse_open_door
from .ingress import use_tls


def run(config_path: Path, settings: dict[str, str], *, ingress: str) -> None:
    """Serve the config's models, and also that of `settings["model"]`, until SIGTERM or SIGINT.

    Args:
        config_path: a file in the Ray Serve schema.
        settings: `host`, `port` and `model`, each optional; an empty `model` means none.
        ingress: the choice of `ingress.choose`.

    Raises:
        ConfigError: the config or the address cannot be used.
        EngineError: a model did not start.
    """
    config = deploy.read_config(config_path)
    http = _address(config, settings)
    _refuse(config, http)
    if settings.get("model"):
        config = deploy.with_model(config, "trained", settings["model"])
    if ingress == "haproxy" and http.get("ssl_keyfile"):
        use_tls(http.pop("ssl_certfile", ""), http.pop("ssl_keyfile"))
    config["http_options"] = http
    with ray_session(ClusterConfig()):
        serve.start(
            http_options=http,
            proxy_location=config.get("proxy_location", "EveryNode"),
            logging_config=config.get("logging_config"),
        )
        try:
            _serve_until_signal(config, Console())
        finally:
            serve.shutdown()


def _serve_until_signal(config: dict[str, Any], console: Console) -> None:
    stop = threading.Event()
    names = [app["name"] for app in config["applications"]]
    console.say(f"starting {', '.join(names)}")
    deploy.submit(config)
    deploy.wait_until_running(names, console.progress)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    scheme = "https" if os.environ.get("OFFSFT_TLS") else "http"
    address = f"{scheme}://{config['http_options']['host']}:{config['http_options']['port']}"
    cluster = ray.get_runtime_context().gcs_address
    console.say(f"serving on {address} (documentation: {address}/docs; Ray: {cluster}). Ctrl-C ends it")
    stop.wait()
    console.say("finishing what is in work")
    # The gateway first: its requests still need the engines.
    deploy.remove(deploy.GATEWAY)


def _address(config: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
    """The config's `http_options` with the host and port to listen on."""
    http = {"host": "127.0.0.1", "port": 8000, **config.get("http_options", {})}
    return http | {"host": settings.get("host", http["host"]), "port": _port(settings.get("port", http["port"]))}


def _port(value: Any) -> int:
    if not str(value).isdigit() or not 0 < int(value) < 65536:
        raise ConfigError(f"port={value} is not a valid port; give a number up to 65535")
    return int(value)


def _refuse(config: dict[str, Any], http: dict[str, Any]) -> None:
    """Refuse, before anything starts: keys that would not arrive, an address open without keys, or one in use.

    Raises:
        ConfigError: one of these.
    """
    gateway: dict[str, Any] = next((app for app in config["applications"] if app["name"] == deploy.GATEWAY), {})
    if os.environ.get("RAY_ADDRESS") and os.environ.get(ENVIRONMENT):
        raise ConfigError(f"{ENVIRONMENT} does not reach a Ray cluster that runs already; give the gateway a keys_file")
    refuse_open_door(http["host"], Keys(gateway.get("args", {}).get("keys_file")))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http["host"], http["port"]))
        except OSError as error:
            raise ConfigError(
                f"{http['host']}:{http['port']} cannot be used: {error.strerror}; give port=..."
            ) from None
