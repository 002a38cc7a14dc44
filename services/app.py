"""The FastAPI application: our routes, the OpenAI routes, health checks, and the middleware. Does not import Ray."""

import asyncio
import time
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from offsft import __version__
from offsft.errors import EngineError, OffsftError
from offsft.protocols import SamplingParams
from offsft.records import Problem

from . import schemas
from .access_log import AccessLogFile
from .dependencies import Dependencies
from .errors import ApiError, ErrorBody, api_error, response_of
from .middleware import AccessLog, Guard
from .routes import router
from .served_models import Served
from .static import page_router
from .streaming import cancel_and_wait
from .validation import invalid

_CANARY = Problem("canary", "What is 1 + 1?", "2", "2")
_FRESH_S = 1.0
"""Seconds for which an engine's output counts as a sign of life, so that frequent checks cost nothing."""
_ABOUT = """Rewrite expert solutions into the model's own words, and generate with the models, before and after training.

Errors have OpenAI's shape. Every answer has an `x-request-id`, which the logs carry."""


def build_app(parts: Dependencies, *, on_serve: bool) -> FastAPI:
    """Build the application. `on_serve`: on Ray Serve, with OpenAI's routes; its proxy returns the request id."""
    app = FastAPIOffline(title="offsft", version=__version__, description=_ABOUT)
    _add_handlers(app, parts.limits.retry_after_s)
    # Only shows the key's field in /docs; the guard checks the key.
    documented = [Depends(HTTPBearer(auto_error=False))] if parts.keys.required else []
    app.include_router(router(parts), dependencies=documented)
    if on_serve:
        from .openai_routes import openai_router

        app.include_router(openai_router(parts), dependencies=documented)
    _add_health(app, parts)
    app.include_router(page_router)
    app.add_middleware(Guard, keys=parts.keys, limits=parts.limits)
    if parts.cors_origins:
        # Outside the guard: a browser asks first, without a key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=parts.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-model-revision", "x-ignored-fields", "retry-after"],
        )
    app.add_middleware(
        AccessLog,
        log=AccessLogFile(parts.access_log),
        retry_after_s=parts.limits.retry_after_s,
        returns_id=not on_serve,
    )
    return app


def _add_handlers(app: FastAPI, retry_after_s: float) -> None:
    """Turn every exception that a route raises on purpose into a response; the rest is for the outermost layer."""

    async def known(_: Request, error: Exception) -> Response:
        return response_of(api_error(error, retry_after_s))

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error, ApiError) or error.status_code not in (404, 405):
            return response_of(error)
        asked = f"{request.method} {request.url.path[:200]}"
        allowed = (error.headers or {}).get("Allow")
        known = f"; it takes {allowed}" if allowed else ""
        error.detail = f"there is no route {asked}{known}; GET /docs shows the routes that there are"
        return response_of(error)

    async def wrong_body(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response_of(invalid(error))

    for kind in (OffsftError, TimeoutError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, no_route)
    app.add_exception_handler(RequestValidationError, wrong_body)


def _add_health(app: FastAPI, parts: Dependencies) -> None:
    canary = Canary(parts)

    @app.get("/healthz", response_model=schemas.Alive, tags=["health"])
    async def healthz() -> schemas.Alive:
        """Liveness: the gateway's process answers."""
        return schemas.Alive()

    @app.get("/readyz", response_model=schemas.Ready, responses={503: {"model": ErrorBody}}, tags=["health"])
    async def readyz() -> schemas.Ready:
        """Readiness: the default model's engine has just produced output, for a client or for this check."""
        states = await canary.sing()
        default = parts.models.default
        if states[default] is not None:
            raise canary.not_ready(default, str(states[default]))
        ready = [name for name, reason in states.items() if reason is None]
        return schemas.Ready(models=ready, not_ready={n: r for n, r in states.items() if r is not None})

    none_or_not_ready: Any = {404: {"model": ErrorBody}, 503: {"model": ErrorBody}}

    @app.get("/readyz/{model}", response_model=schemas.Ready, responses=none_or_not_ready, tags=["health"])
    async def readyz_of(model: str) -> schemas.Ready:
        """Readiness of one model."""
        name = parts.models.find(model).name
        reason = (await canary.sing([name]))[name]
        if reason is not None:
            raise canary.not_ready(name, reason)
        return schemas.Ready(models=[name])


class Canary:
    """Asks each engine for one token, unless recent output shows that it is alive; concurrent checks share one answer.

    Under load the canary waits in the queue like any request, however long that takes. The engine's output for other
    requests meanwhile counts as well as the canary's own token. An engine that hangs or is dead produces none.
    """

    def __init__(self, parts: Dependencies) -> None:
        self._parts = parts
        self._alone = asyncio.Lock()

    async def sing(self, names: list[str] | None = None) -> dict[str, str | None]:
        """Check the models, by default all: by name, why each is not ready, or None."""
        async with self._alone:
            served = [model for name, model in self._parts.models.served.items() if names is None or name in names]
            reasons = await asyncio.gather(*map(self._listen, served))
            return {model.name: reason for model, reason in zip(served, reasons, strict=True)}

    def not_ready(self, name: str, reason: str) -> ApiError:
        return ApiError(503, f"{name} {reason}", code="not_ready", retry_after_s=self._parts.limits.retry_after_s)

    async def _listen(self, served: Served) -> str | None:
        if time.monotonic() - served.heard_s <= _FRESH_S:
            return None
        limit_s = self._parts.ready_timeout_s
        asking = [asyncio.ensure_future(self._ask(served)), asyncio.ensure_future(served.next_output())]
        try:
            done, _ = await asyncio.wait(asking, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return f"has not sampled a token within {limit_s:g} s"
            for task in done:
                task.result()
            return None
        except EngineError as error:
            return f"does not answer: {error}"
        finally:
            await cancel_and_wait(asking)

    async def _ask(self, served: Served) -> None:
        prompts, sampler = await served.open()
        await sampler.sample(prompts.plain(_CANARY), n=1, params=SamplingParams(max_tokens=1))
