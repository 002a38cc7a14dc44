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
from services.streaming import ended

_CANARY = Problem("canary", "What is 1 + 1?", "2", "2")
_FRESH_S = 1.0
"""What an engine puts out shows for so long that it lives, so that asking often costs nothing."""
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
        """The engine of every served model has put out something just now, for a client or for the question."""
        return wire.Ready(models=await canary.sing())


class Canary:
    """Asks each engine for one token, unless real work shows that it lives; many who ask at once share one answer.

    Under load the canary waits its turn among the requests, for as long as the load wants: what the engine puts out for
    them meanwhile counts as well as its own token. An engine that hangs or is dead puts out nothing.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._alone = asyncio.Lock()

    async def sing(self) -> list[str]:
        """The models that answer, which are all.

        Raises:
            ApiError: 503, naming one that does not.
        """
        async with self._alone:
            served = list(self._parts.models.served.values())
            silent = [model for model in served if time.monotonic() - model.heard_s > _FRESH_S]
            await asyncio.gather(*map(self._listen, silent))
            return [model.name for model in served]

    async def _listen(self, served: Served) -> None:
        limit_s = self._parts.ready_timeout_s
        asking = [asyncio.ensure_future(self._ask(served)), asyncio.ensure_future(served.next_output())]
        try:
            done, _ = await asyncio.wait(asking, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                reason = f"has not sampled a token within {limit_s:g} s"
            else:
                for task in done:
                    task.result()
                return
        except EngineError as error:
            reason = f"does not answer: {error}"
        finally:
            await ended(asking)
        raise ApiError(503, f"{served.name} {reason}", code="not_ready", retry_after_s=self._parts.limits.retry_after_s)

    async def _ask(self, served: Served) -> None:
        prompts, sampler = await served.open()
        await sampler.sample(prompts.plain(_CANARY), n=1, params=SamplingParams(max_tokens=1))
