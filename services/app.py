"""The FastAPI application: our routes, the OpenAI routes, health, and the layers in front of them. Knows no Ray."""

import asyncio
import time

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from offsft import __version__
from offsft.errors import EngineError
from offsft.protocols import SamplingParams
from offsft.records import Problem
from services import wire
from services.errors import ApiError, ErrorBody, add_handlers
from services.front import AccessLog, Guard
from services.models import Served
from services.page import page_router
from services.parts import Parts
from services.routes import router

_CANARY = Problem("canary", "What is 1 + 1?", "2", "2")
_FRESH_S = 1.0
"""A canary's answer counts for so long, so that asking often costs nothing."""
_ABOUT = """Rewrite expert solutions into the model's own words, and generate with the models, before and after training.

Errors have OpenAI's shape. Every answer has an `x-request-id`, which the logs carry."""


def build_app(parts: Parts, *, on_serve: bool) -> FastAPI:
    """The whole application. `on_serve`: on Ray Serve, with OpenAI's routes; its proxy returns the request's id itself."""
    app = FastAPIOffline(title="offsft", version=__version__, description=_ABOUT)
    add_handlers(app, parts.limits.retry_after_s)
    # Shows the key's field in /docs; the guard in front is what checks it.
    documented = [Depends(HTTPBearer(auto_error=False))] if parts.keys.required else []
    app.include_router(router(parts), dependencies=documented)
    if on_serve:
        from services.openai_routes import openai_router

        app.include_router(openai_router(parts), dependencies=documented)
    _add_health(app, parts)
    app.include_router(page_router)
    app.add_middleware(Guard, keys=parts.keys, limits=parts.limits)
    app.add_middleware(
        AccessLog, path=parts.access_log, retry_after_s=parts.limits.retry_after_s, returns_id=not on_serve
    )
    return app


def _add_health(app: FastAPI, parts: Parts) -> None:
    canary = Canary(parts)

    @app.get("/healthz", response_model=wire.Alive, tags=["health"])
    async def healthz() -> wire.Alive:
        """The gateway's process answers."""
        return wire.Alive()

    @app.get("/readyz", response_model=wire.Ready, responses={503: {"model": ErrorBody}}, tags=["health"])
    async def readyz() -> wire.Ready:
        """Every served model has sampled a token just now."""
        return wire.Ready(models=await canary.sing())


class Canary:
    """Samples one token of each model, end to end; many who ask at once share one answer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._alone = asyncio.Lock()
        self._sung_s = float("-inf")

    async def sing(self) -> list[str]:
        """The models that answer, which are all.

        Raises:
            ApiError: 503, naming one that does not.
        """
        async with self._alone:
            served = list(self._parts.models.served.values())
            if time.monotonic() - self._sung_s > _FRESH_S:
                await asyncio.gather(*map(self._ask, served))
                self._sung_s = time.monotonic()
            return [model.name for model in served]

    async def _ask(self, served: Served) -> None:
        limit_s = self._parts.ready_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                prompts, sampler = await served.open()
                await sampler.sample(prompts.plain(_CANARY), n=1, params=SamplingParams(max_tokens=1))
        except TimeoutError:
            reason = f"has not sampled a token within {limit_s:g} s"
        except EngineError as error:
            reason = f"does not answer: {error}"
        else:
            return
        raise ApiError(503, f"{served.name} {reason}", code="not_ready", retry_after_s=self._parts.limits.retry_after_s)
