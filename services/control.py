"""Starting the applications of a Serve config, and switching a model to other weights while they run.

Serve has no public Python call for a config; this uses the client that its own command line does.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.schema import ServeDeploySchema

from offsft.config import Routing
from offsft.errors import ConfigError, EngineError
from services.settings import checked, model_folder, revision_of

GATEWAY = "gateway"
START_S = 600.0
"""An engine that has not started by then will not."""
_POLL_S = 0.25

Say = Callable[[str], None]


def read_config(path: Path) -> dict[str, Any]:
    """A config in the Serve schema, as it stands.

    Raises:
        ConfigError: it cannot be read or is no such config.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(tree)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is no Serve config: {' '.join(str(error).split())}") from None
    return tree


def with_model(config: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """The config with one more model beside its first, which becomes the default."""
    first = next(app for app in config["applications"] if app["name"] != GATEWAY)
    application = _application(name, revision_of(model_folder(path), None))
    more = {**first, "name": application, "args": {**first["args"], "name": name, "path": path}}
    models = [*_routing(config)["models"], {"name": name, "path": path, "application": application}]
    return _routed({**config, "applications": [*config["applications"], more]}, {"default": name, "models": models})


def submit(config: dict[str, Any]) -> None:
    """Hand a config to Serve, which makes it true; applications that it does not name end."""
    _client().deploy_apps(ServeDeploySchema.model_validate(config))


def wait_until_running(names: list[str]) -> None:
    """Until the applications answer.

    Raises:
        EngineError: one did not start; with Serve's own reason.
    """
    end_s = time.monotonic() + START_S
    while True:
        states = serve.status().applications
        for name in names:
            if name in states and states[name].status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise EngineError(f"{name} did not start: {_last_line(states[name].message)}")
        if all(name in states and states[name].status == "RUNNING" for name in names):
            return
        if time.monotonic() > end_s:
            raise EngineError(f"{', '.join(names)} did not start within {START_S:g} s; see the logs of Ray Serve")
        time.sleep(_POLL_S)


def switch(path: str, name: str | None, say: Say) -> None:
    """Serve the weights in `path` under the name of a model that is served (the default one if None).

    The new engine starts beside the old; new requests get it once it runs, those in work keep the old, which ends when
    none has it any more. Needs the resources of both for that time.

    Raises:
        ConfigError: there is no such model, or no gateway.
        EngineError: the new engine did not start; then the old one goes on as before.
    """
    config = _current()
    routing = checked(Routing, _routing(config), "the gateway's user_config")
    name = name or routing.default
    old = next((model for model in routing.models if model.name == name), None)
    if old is None:
        raise ConfigError(f"no model {name!r} is served; there are {', '.join(m.name for m in routing.models)}")
    revision = revision_of(model_folder(path), None)
    new = _application(name, revision)
    if new == old.application:
        say(f"{name} is served from {path} at revision {revision} already")
        return
    apps = {app["name"]: app for app in config["applications"]}
    used = {GATEWAY, *(model.application for model in routing.models)}
    template = apps[old.application]
    arguments = {**template["args"], "path": path, "revision": None}
    keep = [app for name_, app in apps.items() if name_ in used]
    both = {**config, "applications": [*keep, {**template, "name": new, "args": arguments}]}
    say(f"starting {name} at revision {revision} beside the one that is served")
    submit(both)
    try:
        wait_until_running([new])
    except EngineError:
        submit({**config, "applications": keep})
        raise
    models = [
        {"name": name, "path": path, "application": new} if model is old else model.model_dump()
        for model in routing.models
    ]
    routed = _routed(both, {"default": routing.default, "models": models})
    submit(routed)
    gateway = serve.get_deployment_handle("Gateway", app_name=GATEWAY)
    _until(lambda: set(_each(gateway, "revision", name)) == {revision})
    say(f"new requests get revision {revision}; those that have the old one in hand end with it")
    _until(lambda: set(_each(gateway, "in_hand", old.application)) == {0})
    submit({**routed, "applications": [app for app in routed["applications"] if app["name"] != old.application]})
    _until(lambda: old.application not in serve.status().applications)
    say(f"{name} is served from {path} at revision {revision}")


def _each(gateway: Any, method: str, *arguments: str) -> list[Any]:
    """What each replica of the gateway answers; nothing while one cannot, being started, ended or given a new routing."""
    replicas = serve.status().applications[GATEWAY].deployments["Gateway"].replica_states
    try:
        answers = gateway.broadcast(method, *arguments).results()
    except DeploymentUnavailableError:
        return []
    return answers if len(answers) == sum(replicas.values()) else []


def _application(name: str, revision: str) -> str:
    return f"generator-{name}-{revision}"


def _routing(config: dict[str, Any]) -> dict[str, Any]:
    gateway = next((app for app in config["applications"] if app["name"] == GATEWAY), None)
    if gateway is None:
        raise ConfigError(f"there is no application {GATEWAY}; start the services first, with `make serve`")
    return next(d["user_config"] for d in gateway["deployments"] if d["name"] == "Gateway")


def _routed(config: dict[str, Any], routing: dict[str, Any]) -> dict[str, Any]:
    """The config with another routing of its gateway."""
    apps = []
    for app in config["applications"]:
        if app["name"] == GATEWAY:
            deployments = [d | {"user_config": routing} if d["name"] == "Gateway" else d for d in app["deployments"]]
            app = {**app, "deployments": deployments}
        apps.append(app)
    return {**config, "applications": apps}


def _current() -> dict[str, Any]:
    """The config that Serve works by now."""
    applications = _client().get_serve_details()["applications"].values()
    return {"applications": [app["deployed_app_config"] for app in applications if app["deployed_app_config"]]}


def _client() -> Any:
    return _get_global_client()


def _until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + START_S
    while not condition():
        if time.monotonic() > end_s:
            raise EngineError(f"the services did not get there within {START_S:g} s; see `serve status`")
        time.sleep(_POLL_S)


def _last_line(message: str) -> str:
    return (message.strip().splitlines() or ["no reason given"])[-1]
