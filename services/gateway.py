"""The Serve application that clients talk to: the FastAPI application over the engines of the generators."""

import asyncio
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from offsft.config import Recipe
from offsft.inference.engines.serve import ServeSampler
from offsft.inference.thought_budget import with_thought_budget
from offsft.models import fingerprint, position_limit
from offsft.prompts import Prompts, load_prompts
from offsft.protocols import Sampler
from offsft.rewrite.cascade import cascade_settings
from offsft.rewrite.solved import SolvedProblems
from offsft.storage.run_folder import RunFolder
from offsft.verify import open_verifier

from .adapters import ADAPTER
from .admission import Gate
from .app import build_app
from .auth import Keys, refuse_open_door
from .dependencies import Dependencies
from .generator import deployment_name
from .openai_engine import OpenAiEngine
from .rewriting import Rewriter
from .served_models import Models, Served
from .settings import Routing, ServedModel, Serving, model_folder, recipe_at, validate


@serve.deployment(name="Gateway")
@serve.ingress()
class Gateway:
    """One replica of the gateway. Its `user_config` is a `services.settings.Routing`."""

    def __init__(self, settings: Serving) -> None:
        self._settings = settings
        self._recipe = recipe_at(settings.recipe)
        self._keys = Keys(settings.keys_file)
        refuse_open_door(_http_host(), self._keys)
        self._models = Models()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve these models from now on; running requests keep the model they have."""
        routing = validate(Routing, user_config, "the gateway's user_config")
        known = list(self._models.served.values())
        models = [await _load_served(model, self._recipe) for model in routing.models]
        self._models.replace([_as_before(known, model) for model in models], routing.default)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        settings, recipe = self._settings, self._recipe
        cascade = cascade_settings(recipe.rewrite, recipe.model.context_tokens)
        parts = Dependencies(
            limits=settings.limits,
            keys=self._keys,
            gate=Gate(settings.limits, settings.key_weights),
            models=self._models,
            rewriter=Rewriter(
                cascade,
                open_verifier(recipe.verify),
                settings.limits,
                SolvedProblems(RunFolder(recipe.run).rewrites, grows=False),
            ),
            verifier_kind=recipe.verify.label,
            ready_timeout_s=settings.ready_timeout_s,
            access_log=settings.access_log,
            cors_origins=tuple(settings.cors_origins),
        )
        return build_app(parts, on_serve=True)

    def revision(self, model: str) -> str | None:
        """The revision of a model that new requests to this replica get; None if it is not served."""
        served = self._models.served.get(model)
        return served.revision if served else None

    def in_hand(self, application: str) -> int:
        """Number of this replica's requests that use the engine of a generator application."""
        return self._models.in_hand(application)


def application(args: dict[str, Any]) -> Application:
    """`import_path` of a Serve config; `args` are a `services.settings.Serving`."""
    return Gateway.bind(validate(Serving, args, "gateway"))


def _as_before(known: list[Served], model: Served) -> Served:
    """The model already served, if it has the same weights, since its tokenizer is loaded; else the new one."""
    identity = (model.name, model.application, model.revision)
    return next((served for served in known if (served.name, served.application, served.revision) == identity), model)


async def _load_served(model: ServedModel, recipe: Recipe) -> Served:
    folder = await asyncio.to_thread(model_folder, model.path)
    revision = await asyncio.to_thread(fingerprint, model.adapter or folder, model.revision)
    positions = await asyncio.to_thread(position_limit, folder, model.revision)
    # On the replica's loop: its router may run there.
    handle = serve.get_deployment_handle(deployment_name(model.base or model.name), app_name=model.application)
    name, extra = model.name, {}
    if model.adapter is not None:
        # By its revision: an engine would go on with the weights that it has loaded under a name.
        name, extra = f"{model.name}@{revision}", {ADAPTER: model.adapter}
        handle = handle.options(multiplexed_model_id=name)
    context = recipe.model.context_tokens + 1  # scoring a row samples one token after it
    return Served(
        model.name,
        revision,
        partial(load_prompts, folder, model.revision, recipe.prompt, recipe.model.thinking),
        partial(_sampler, handle, name, extra, recipe.model.thinking_tokens),
        application=model.application,
        openai=OpenAiEngine(handle, name, extra, context - 1),
        takes_seed=recipe.engine.gpus > 0,
        row_tokens=None if positions is None else positions - 1,
        context_tokens=min(context, positions or context),
    )


def _sampler(handle: Any, model: str, extra: dict[str, Any], thinking_tokens: int | None, prompts: Prompts) -> Sampler:
    sampler = ServeSampler(handle, model, prompts.turn.stop_ids, extra)
    return with_thought_budget(sampler, prompts, thinking_tokens)


def _http_host() -> str:
    """The address on which Serve's proxies listen, whatever started them."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None, "a replica runs in Serve"
    return str(client.http_config.host)
