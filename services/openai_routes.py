"""The OpenAI routes of ray.serve.llm, with our limits in front and the revision in a header."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import cache
from typing import Any

import ray.exceptions
from fastapi import APIRouter, Request
from pydantic import TypeAdapter
from ray.serve.exceptions import RayServeException
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from starlette.responses import Response

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
        headers = {"x-model-revision": served.revision}
        async with asyncio.timeout_at(ticket.deadline_s):
            if body.stream:
                begun = stack.enter_async_context(served.openai.events(method, body))
                chunks = await or_gone(request.receive, begun)
            else:
                whole = await or_gone(request.receive, served.openai.whole(method, body))
                served.heard()
                note.prompt_tokens, note.completion_tokens = whole.prompt_tokens, whole.completion_tokens
                return Response(whole.text, media_type="application/json", headers=headers)
        events = _streamed(chunks, served, note, shows_usage, ticket.deadline_s)
        return HeldResponse(events, stack.pop_all(), media_type="text/event-stream", headers=headers)


def _ask_for_usage(body: Any) -> bool:
    """Have a stream end with its usage, for the log; whether the client wants to see it."""
    if not body.stream:
        return True
    shows = body.stream_options is not None and bool(body.stream_options.include_usage)
    asked = {} if body.stream_options is None else body.stream_options.model_dump(exclude_unset=True)
    body.stream_options = _stream_options(type(body)).validate_python({**asked, "include_usage": True})
    return shows


@cache
def _stream_options(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind.model_fields["stream_options"].annotation)


async def _streamed(
    chunks: AsyncGenerator[str, None], served: Served, note: Note, shows_usage: bool, deadline_s: float
) -> AsyncGenerator[str, None]:
    """The chunks without a usage that was not asked for; an engine that dies in between ends it with an error event."""
    async with aclosing(chunks):
        try:
            async with asyncio.timeout_at(deadline_s):
                async for text in chunks:
                    served.heard()
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
