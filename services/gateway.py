"""The Serve application that everybody talks to: the FastAPI application over the engines of the generator applications."""

import asyncio
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from offsft.cascade import cascade_settings
from offsft.config import Recipe, Routing, ServedModel, Serving
from offsft.prompts import Prompts, load_prompts
from offsft.sampling.handle import HandleSampler
from offsft.verify import open_verifier
from services.app import build_app
from services.gate import Gate
from services.generator import deployment_name
from services.keys import Keys, refuse_open_door
from services.models import Models, Served
from services.openai_engine import OpenAiEngine
from services.parts import Parts
from services.rewriting import Rewriter
from services.settings import checked, model_folder, recipe_at, revision_of


@serve.deployment(name="Gateway")
@serve.ingress()
class Gateway:
    """One replica of the gateway. Its `user_config` is an `offsft.config.Routing`."""

    def __init__(self, settings: Serving) -> None:
        self._settings = settings
        self._recipe = recipe_at(settings.recipe)
        self._keys = Keys(settings.keys_file)
        refuse_open_door(_http_host(), self._keys)
        self._models = Models()

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve other models from now on; requests that have one in hand keep it."""
        routing = checked(Routing, user_config, "the gateway's user_config")
        known = list(self._models.served.values())
        models = [await _served(model, self._recipe) for model in routing.models]
        self._models.replace([_as_before(known, model) for model in models], routing.default)

    async def __serve_build_asgi_app__(self) -> FastAPI:
        settings, recipe = self._settings, self._recipe
        cascade = cascade_settings(recipe.rewrite, recipe.model.context_tokens)
        parts = Parts(
            limits=settings.limits,
            keys=self._keys,
            gate=Gate(settings.limits),
            models=self._models,
            rewriter=Rewriter(cascade, open_verifier(recipe.verify), settings.limits),
            verifier_kind=recipe.verify.kind,
            ready_timeout_s=settings.ready_timeout_s,
            access_log=settings.access_log,
        )
        return build_app(parts, on_serve=True)

    def revision(self, model: str) -> str | None:
        """The revision of a model that new requests of this replica get; None if it serves no such model."""
        served = self._models.served.get(model)
        return served.revision if served else None

    def in_hand(self, application: str) -> int:
        """Requests of this replica that work with the engine of a generator application."""
        return self._models.in_hand(application)


def application(args: dict[str, Any]) -> Application:
    """`import_path` of a Serve config; `args` are an `offsft.config.Serving`."""
    return Gateway.bind(checked(Serving, args, "gateway"))


def _as_before(known: list[Served], model: Served) -> Served:
    """The one that is served already, where it has the same weights: its tokenizer is loaded."""
    identity = (model.name, model.application, model.revision)
    return next((served for served in known if (served.name, served.application, served.revision) == identity), model)


async def _served(model: ServedModel, recipe: Recipe) -> Served:
    folder = await asyncio.to_thread(model_folder, model.path)
    revision = await asyncio.to_thread(revision_of, folder, model.revision)
    # On the replica's loop: its router may run there.
    handle = serve.get_deployment_handle(deployment_name(model.name), app_name=model.application)
    return Served(
        model.name,
        revision,
        partial(load_prompts, folder, model.revision, recipe.prompt),
        partial(_sampler, handle, model.name),
        application=model.application,
        openai=OpenAiEngine(handle),
        takes_seed=recipe.engine.gpus > 0,
    )


def _sampler(handle: Any, model: str, prompts: Prompts) -> HandleSampler:
    return HandleSampler(handle, model, (prompts.end_of_turn,))


def _http_host() -> str:
    """Where Serve's proxies listen, whatever started them."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None, "a replica runs in Serve"
    return str(client.http_config.host)
