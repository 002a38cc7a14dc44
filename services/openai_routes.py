"""The OpenAI routes of ray.serve.llm, with our limits in front and the revision in a header."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import ray.exceptions
from fastapi import APIRouter, Request
from pydantic import TypeAdapter
from ray.llm._internal.serve.core.configs.openai_api_models import OpenAIHTTPException
from ray.serve.exceptions import RayServeException
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from offsft.sampling.handle import engine_error
from services.errors import ApiError, api_error, body_of
from services.front import Note, note_of
from services.models import Served
from services.parts import Parts
from services.routes import ERRORS
from services.streaming import HeldResponse, or_gone

_CHAT = {"messages": [{"role": "user", "content": "What is 3 * 4?"}], "max_tokens": 32}
_COMPLETION = {"prompt": "3 * 4 =", "max_tokens": 8, "logprobs": 1}


def openai_router(parts: Parts) -> APIRouter:
    """POST /v1/chat/completions and /v1/completions."""
    routes = APIRouter(prefix="/v1", responses=ERRORS, tags=["openai"])

    @routes.post("/chat/completions", openapi_extra=_example(_CHAT))
    async def chat(body: ChatCompletionRequest, request: Request) -> Response:
        """OpenAI's chat completions. Log-probs are those of the distribution that is sampled from."""
        wanted = body.max_completion_tokens or body.max_tokens
        _check(parts, body.n or 1, wanted)
        return await _answer(parts, body, request, "chat")

    @routes.post("/completions", openapi_extra=_example(_COMPLETION))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """OpenAI's completions."""
        many = isinstance(body.prompt, list) and bool(body.prompt) and not isinstance(body.prompt[0], int)
        _check(parts, body.n * (len(body.prompt) if many and isinstance(body.prompt, list) else 1), body.max_tokens)
        return await _answer(parts, body, request, "completions")

    return routes


def _example(body: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"example": body}}}}


def _check(parts: Parts, samples: int, max_tokens: int | None) -> None:
    limits = parts.limits
    for figure, limit, param in ((samples, limits.samples, "n"), (max_tokens or 0, limits.max_tokens, "max_tokens")):
        if figure > limit:
            raise ApiError(
                422, f"{param} comes to {figure}, and the limit is {limit}", code="beyond_limit", param=param
            )


async def _answer(parts: Parts, body: Any, request: Request, method: str) -> Response:
    """Have the model's engine answer, and hold the model and a slot until the answer's last byte."""
    note = note_of(request.scope)
    async with AsyncExitStack() as stack:
        served = stack.enter_context(parts.models.taken(body.model))
        note.model = f"{served.name}@{served.revision}"
        if body.seed is not None and not served.takes_seed:
            raise ApiError(422, "an engine on a CPU takes no seed", code="unsupported", param="seed")
        body.model = served.name
        # Ray would take the client's x-request-id, and two clients may send the same.
        body.request_id = f"{note.request_id}-{secrets.token_hex(4)}"
        shows_usage = _ask_for_usage(body)
        ticket = await parts.gate.enter()
        stack.callback(ticket.close)
        async with asyncio.timeout_at(ticket.deadline_s):
            response = await or_gone(request.receive, _asked(served, method, body, request))
        response.headers["x-model-revision"] = served.revision
        if isinstance(response, StreamingResponse):
            chunks = _streamed(response.body_iterator, note, shows_usage, ticket.deadline_s)
            headers = {"x-model-revision": served.revision}
            return HeldResponse(chunks, stack.pop_all(), media_type="text/event-stream", headers=headers)
        if isinstance(response, JSONResponse):
            _count(note, json.loads(bytes(response.body)).get("usage"))
        return response


async def _asked(served: Served, method: str, body: Any, request: Request) -> Response:
    try:
        return await getattr(served.openai, method)(body, request)
    except OpenAIHTTPException as error:
        raise ApiError(error.status_code, error.message, code=error.type or "invalid_request") from error
    except (ray.exceptions.RayError, RayServeException) as error:
        raise engine_error(error) from error


def _ask_for_usage(body: Any) -> bool:
    """Have a stream end with its usage, for the log; whether the client wants to see it."""
    if not body.stream:
        return True
    shows = body.stream_options is not None and bool(body.stream_options.include_usage)
    asked = {} if body.stream_options is None else body.stream_options.model_dump(exclude_unset=True)
    kind = type(body).model_fields["stream_options"].annotation
    body.stream_options = TypeAdapter(kind).validate_python({**asked, "include_usage": True})
    return shows


async def _streamed(chunks: Any, note: Note, shows_usage: bool, deadline_s: float) -> AsyncGenerator[str, None]:
    """The chunks without a usage that was not asked for; an engine that dies in between ends it with an error event."""
    async with aclosing(chunks):
        try:
            async with asyncio.timeout_at(deadline_s):
                async for chunk in chunks:
                    text = chunk if isinstance(chunk, str) else bytes(chunk).decode()
                    if '"choices":[]' in text.replace(" ", ""):
                        text = _without_usage(text, note, shows_usage)
                    if text:
                        yield text
        except (ray.exceptions.RayError, RayServeException, TimeoutError) as error:
            known = error if isinstance(error, TimeoutError) else engine_error(error)
            yield f"data: {json.dumps(body_of(api_error(known, 0)))}\n\ndata: [DONE]\n\n"


def _without_usage(text: str, note: Note, shows_usage: bool) -> str:
    kept = []
    for event in text.split("\n\n"):
        content = event.removeprefix("data: ")
        parsed = json.loads(content) if content.startswith("{") else {}
        if parsed.get("choices") == [] and parsed.get("usage"):
            _count(note, parsed["usage"])
            if not shows_usage:
                continue
        kept.append(event)
    return "\n\n".join(kept)


def _count(note: Note, usage: dict[str, Any] | None) -> None:
    if usage:
        note.prompt_tokens += usage.get("prompt_tokens") or 0
        note.completion_tokens += usage.get("completion_tokens") or 0
