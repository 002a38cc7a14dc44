"""Starts the applications of a Serve config, and switches a model to other weights while they run.

Serve has no public Python call for a config, so this uses the client of Serve's own command line.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.schema import ServeDeploySchema

from offsft.errors import ConfigError, EngineError
from offsft.models import fingerprint
from offsft.runtime.console import span

from .settings import Adapters, Routing, ServedModel, model_folder, validate

GATEWAY = "gateway"
START_S = 600.0
"""Seconds after which an engine that has not started is given up."""
_POLL_S = 0.25

Say = Callable[[str], None]


def read_config(path: Path) -> dict[str, Any]:
    """Read a config in the Serve schema, with import paths and recipes as replicas find them.

    Raises:
        ConfigError: it cannot be read or is not a valid Serve config.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        ServeDeploySchema.model_validate(tree)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is not a valid Serve config: {' '.join(str(error).split())}") from None
    return {**tree, "applications": [_as_replicas_find_it(app) for app in tree["applications"]]}


def _as_replicas_find_it(app: dict[str, Any]) -> dict[str, Any]:
    module, _, rest = app["import_path"].partition(":")
    if module.startswith("services.") and Path(__file__).with_name(f"{module.removeprefix('services.')}.py").exists():
        module = f"{__package__}.{module.removeprefix('services.')}"  # `offsft.services` where offsft is installed
    args = dict(app.get("args") or {})
    if isinstance(args.get("recipe"), str):
        args["recipe"] = _full_path(args["recipe"])
    return {**app, "import_path": f"{module}:{rest}", "args": args}


def _full_path(path: str) -> str:
    """A path that exists here, made absolute, since replicas run in another directory; any other is unchanged."""
    return str(Path(path).resolve()) if path != "embedded" and Path(path).exists() else path


def with_model(config: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    """The config with a second model, which becomes the default."""
    path = _full_path(path)
    first = next(app for app in config["applications"] if app["name"] != GATEWAY)
    application = _application(name, fingerprint(model_folder(path)))
    more = {**first, "name": application, "args": {**first["args"], "name": name, "path": path}}
    models = [*_routing(config)["models"], {"name": name, "path": path, "application": application}]
    return _with_routing(
        {**config, "applications": [*config["applications"], more]}, {"default": name, "models": models}
    )


def submit(config: dict[str, Any]) -> None:
    """Deploy a config with Serve; applications that it does not name are removed."""
    _client().deploy_apps(ServeDeploySchema.model_validate(config))


def remove(name: str) -> None:
    """Delete an application once it has answered what it has in hand; its own config says how long that may take.

    Raises:
        EngineError: it is still there after START_S.
    """
    # Serve's own wait gives up after a minute, in the middle of an answer.
    serve.delete(name, _blocking=False)
    _until(lambda: name not in serve.status().applications)


def wait_until_running(names: list[str], show: Say) -> None:
    """Wait until the applications run, and show which do not yet, and for how long.

    Raises:
        EngineError: one did not start, with Serve's reason.
    """
    started_s = time.monotonic()
    while True:
        states = serve.status().applications
        for name in names:
            if name in states and states[name].status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise EngineError(f"{name} did not start: {_last_line(states[name].message)}")
        starting = [name for name in names if name not in states or states[name].status != "RUNNING"]
        if not starting:
            return
        waited_s = time.monotonic() - started_s
        if waited_s > START_S:
            raise EngineError(f"{', '.join(starting)} did not start within {START_S:g} s; see the logs of Ray Serve")
        show(f"starting {', '.join(starting)}, {span(waited_s)}")
        time.sleep(_POLL_S)


def switch(path: str, name: str | None, say: Say, show: Say) -> None:
    """Serve the weights in `path` under the name of a served model (the default one if None).

    The new engine starts while the old one runs. New requests get it once it is up; running ones keep the old engine,
    which ends with the last of them. This needs the resources of both for that time. `say` prints permanent lines, `show`
    progress.

    Raises:
        ConfigError: there is no such model, or no gateway.
        EngineError: the new engine did not start; the old one keeps serving.
    """
    config, path = _current(), _full_path(path)
    routing = validate(Routing, _routing(config), "the gateway's user_config")
    name = name or routing.default
    old = next((model for model in routing.models if model.name == name), None)
    if old is None:
        raise ConfigError(f"no model {name!r} is served; there are {', '.join(m.name for m in routing.models)}")
    revision = fingerprint(model_folder(path))
    new = _application(name, revision)
    if new == old.application:
        say(f"{name} is served from {path} at revision {revision} already")
        return
    riders = [model.name for model in routing.models if model.base == name]
    if riders:
        raise ConfigError(
            f"{name} has the adapters {', '.join(riders)}, which are of its present weights; take them away first with"
            f" `adapter= name={riders[0]}`"
        )
    apps = {app["name"]: app for app in config["applications"]}
    used = {GATEWAY, *(model.application for model in routing.models)}
    template = apps[old.application]
    arguments = {**template["args"], "path": path, "revision": None}
    keep = [app for name_, app in apps.items() if name_ in used]
    both = {**config, "applications": [*keep, {**template, "name": new, "args": arguments}]}
    say(f"starting {name} at revision {revision} beside the one that is served")
    submit(both)
    try:
        wait_until_running([new], show)
    except EngineError:
        submit({**config, "applications": keep})
        raise
    models = [
        {"name": name, "path": path, "application": new} if model is old else model.model_dump()
        for model in routing.models
    ]
    routed = _with_routing(both, {"default": routing.default, "models": models})
    submit(routed)
    gateway = serve.get_deployment_handle("Gateway", app_name=GATEWAY)
    _until(lambda: set(_each(gateway, "revision", name)) == {revision})
    say(f"new requests get revision {revision}; those that have the old one in hand end with it")
    _until(lambda: set(_each(gateway, "in_hand", old.application)) == {0})
    submit({**routed, "applications": [app for app in routed["applications"] if app["name"] != old.application]})
    _until(lambda: old.application not in serve.status().applications)
    say(f"{name} is served from {path} at revision {revision}")


def switch_adapter(folder: str, name: str, base: str | None, say: Say) -> None:
    """Serve a LoRA adapter under a name, beside its base model (the default one if None), on the same engine.

    An empty `folder` takes the adapter away. The engine loads it when a request first asks for it.

    Raises:
        ConfigError: there is no such base, its engine has no room for adapters, or the folder holds no fitting one.
    """
    config = _current()
    routing = validate(Routing, _routing(config), "the gateway's user_config")
    old = next((model for model in routing.models if model.name == name), None)
    if old is not None and old.adapter is None:
        raise ConfigError(f"{name} is a model of its own; give the adapter another name")
    if not folder and old is None:
        raise ConfigError(f"no adapter {name!r} is served")
    models = [model.model_dump() for model in routing.models if model is not old]
    default = routing.default
    if folder:
        holder = _base_of(routing, base or (old.base if old else None))
        folder = _full_path(folder)
        app = next(app for app in config["applications"] if app["name"] == holder.application)
        check_adapter(folder, app["args"].get("adapters"), holder.name)
        models.append(holder.model_dump() | {"name": name, "adapter": folder, "base": holder.name})
    elif default == name:
        raise ConfigError(f"{name} is the default model; make another one the default first")
    submit(_with_routing(config, {"default": default, "models": models}))
    gateway = serve.get_deployment_handle("Gateway", app_name=GATEWAY)
    revision = fingerprint(folder) if folder else None
    _until(lambda: set(_each(gateway, "revision", name)) == {revision})
    say(f"{name} is served from {folder} at revision {revision}" if folder else f"{name} is no longer served")


def _base_of(routing: Routing, name: str | None) -> ServedModel:
    bases = {model.name: model for model in routing.models if model.adapter is None}
    default = next(model for model in routing.models if model.name == routing.default)
    wanted = name or default.base or default.name
    if wanted not in bases:
        raise ConfigError(f"no model {wanted!r} is served; there are {', '.join(bases)}")
    return bases[wanted]


def check_adapter(folder: str, room: dict[str, Any] | None, base: str) -> None:
    """Check that a folder holds an adapter that an engine with this `room` takes.

    Raises:
        ConfigError: saying what is missing.
    """
    if room is None:
        raise ConfigError(
            f"{base} was started without room for adapters; add `adapters: {{}}` to its application's args and start again"
        )
    file = Path(folder) / "adapter_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"adapter={folder}: {file.name} cannot be read: {error}") from None
    if not any(Path(folder).glob("adapter_model.*")):
        raise ConfigError(f"adapter={folder} holds no adapter_model.safetensors")
    rank, taken = settings.get("r", 0), validate(Adapters, room, "adapters")
    if rank > taken.rank:
        raise ConfigError(
            f"adapter={folder} has rank {rank}, and {base} takes {taken.rank}: raise `adapters.rank` in its args"
        )
    names = settings.get("target_modules") or []
    layers = {str(name).rpartition(".")[2] for name in ([names] if isinstance(names, str) else names)}
    if others := sorted(layers - set(taken.targets)):
        raise ConfigError(
            f"adapter={folder} changes the layers {', '.join(others)}, and {base} takes none on them: add them to"
            " `adapters.targets` in its args"
        )


def _each(gateway: Any, method: str, *arguments: str) -> list[Any]:
    """Each gateway replica's answer; empty while one is starting, ending or being given a new routing."""
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


def _with_routing(config: dict[str, Any], routing: dict[str, Any]) -> dict[str, Any]:
    """The config with another routing for its gateway."""
    apps = []
    for app in config["applications"]:
        if app["name"] == GATEWAY:
            deployments = [d | {"user_config": routing} if d["name"] == "Gateway" else d for d in app["deployments"]]
            app = {**app, "deployments": deployments}
        apps.append(app)
    return {**config, "applications": apps}


def _current() -> dict[str, Any]:
    """The config that Serve runs now."""
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
