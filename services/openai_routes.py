"""The OpenAI routes of ray.serve.llm, behind our limits and with the revision in a header."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import cache
from typing import Any

from fastapi import APIRouter, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from offsft.errors import ModelError

from .bodies import checked_route
from .cost import Cost, openai_cost
from .dependencies import Dependencies
from .errors import ApiError, api_error, body_of
from .middleware import Note, note_of
from .openai_bodies import ChatBody, CompletionBody, DetokenizeBody, ResponsesBody, TokenizeBody, TokenizeChatBody
from .routes import ERRORS
from .served_models import Served
from .streaming import STREAM_HEADERS, HeldResponse, begin, or_gone, within

_CHAT = {"messages": [{"role": "user", "content": "What is 3 * 4?"}], "max_tokens": 32}
_RESPONSE = {"input": "What is 3 * 4?", "max_output_tokens": 32}
_COMPLETED = '"response.completed"'
_COMPLETION = {"prompt": "3 * 4 =", "max_tokens": 8, "logprobs": 1}
_IGNORED = "x-ignored-fields"
"""Header that names the fields of a request that had no effect."""


def openai_router(parts: Dependencies) -> APIRouter:
    """POST /v1/chat/completions, /v1/completions, /v1/responses, /tokenize and /detokenize."""
    routes = APIRouter(responses=ERRORS, tags=["openai"], route_class=checked_route(parts.limits))

    @routes.post("/v1/chat/completions", openapi_extra=_example(_CHAT))
    async def chat(body: ChatBody, request: Request) -> Response:
        """OpenAI's chat completions. Log-probs are those of the distribution that was sampled from."""
        return await _answer(parts, body, request, "chat")

    @routes.post("/v1/completions", openapi_extra=_example(_COMPLETION))
    async def completions(body: CompletionBody, request: Request) -> Response:
        """OpenAI's completions."""
        return await _answer(parts, body, request, "completions")

    @routes.post("/v1/responses", openapi_extra=_example(_RESPONSE))
    async def responses(body: ResponsesBody, request: Request) -> Response:
        """OpenAI's responses. Nothing is stored: a conversation goes on by sending all of it as `input`."""
        return await _answer(parts, body, request, "responses")

    @routes.post("/tokenize", openapi_extra=_example({"prompt": "3 * 4 ="}))
    async def tokenize(body: TokenizeBody | TokenizeChatBody, request: Request) -> Response:
        """The token ids of a `prompt`, or of `messages` as the model's template renders them."""
        return await _look_up(parts, body, request, "tokenize")

    @routes.post("/detokenize", openapi_extra=_example({"tokens": [1, 2, 3]}))
    async def detokenize(body: DetokenizeBody, request: Request) -> Response:
        """The text of token ids."""
        return await _look_up(parts, body, request, "detokenize")

    return routes


def _example(body: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"example": body}}}}


async def _look_up(parts: Dependencies, body: Any, request: Request, method: str) -> Response:
    """Answer what needs the engine's tokenizer alone, and so waits for no place."""
    note = note_of(request.scope)
    with parts.models.taken(body.model) as served:
        note.model = f"{served.name}@{served.revision}"
        async with asyncio.timeout(parts.limits.deadline_s):
            whole = await or_gone(request.receive, served.openai.whole(method, body))
    return Response(whole.text, media_type="application/json", headers={"x-model-revision": served.revision})


async def _answer(parts: Dependencies, body: Any, request: Request, method: str) -> Response:
    """Answer with the model's engine, holding the model and its places until the last byte is sent."""
    note = note_of(request.scope)
    async with AsyncExitStack() as stack:
        served = stack.enter_context(parts.models.taken(body.model))
        note.model = f"{served.name}@{served.revision}"
        cost = openai_cost(body, parts.limits, served.context_tokens)
        ignored = _take_out_what_has_no_effect(body, served)
        headers = {"x-model-revision": served.revision} | ({_IGNORED: ",".join(ignored)} if ignored else {})
        # vLLM's order: the lowest first. It holds among one key's own requests, so that nobody passes the others.
        priority, body.priority = body.priority or 0, 0
        # Ray would use the client's x-request-id, and two clients may send the same.
        body.request_id = f"{note.request_id}-{secrets.token_hex(4)}"
        if method == "chat":
            await _render_as_trained(body, served)
        turn = _Turn(parts, note, served, cost, priority)
        sent = await _fields(body, request) if method == "responses" else body
        if not body.stream:
            whole = await or_gone(request.receive, _whole(turn, method, sent))
            return Response(whole.text, media_type="application/json", headers=headers)
        _refuse_streams(body)
        shows_usage = method == "responses" or _ask_for_usage(body)

        def on_error(error: Exception) -> str:
            parts.log_unexpected(error, note.request_id)
            told = json.dumps(body_of(api_error(error, 0, note.request_id)))
            return f"event: error\ndata: {told}\n\n" if method == "responses" else f"data: {told}\n\ndata: [DONE]\n\n"

        events = _stream(turn, method, sent, shows_usage)
        begun = await begin(events, stack, request.receive, parts.limits.comment_s, on_error)
        return HeldResponse(
            begun, stack.pop_all(), media_type="text/event-stream", headers={**headers, **STREAM_HEADERS}
        )


class _Turn:
    """A request's turn at its model: enters the queue with its cost, and counts its tokens at the end."""

    def __init__(self, parts: Dependencies, note: Note, served: Served, cost: Cost, priority: int) -> None:
        self.parts, self.note, self.served = parts, note, served
        self._cost = cost
        self._priority = priority

    async def enter(self) -> Any:
        cost = self._cost
        return await self.parts.gate.enter(
            self.note.key,
            self.served.name,
            sequences=cost.sequences,
            tokens=cost.tokens,
            priority=self._priority,
        )


async def _fields(body: Any, request: Request) -> dict[str, Any]:
    """A request for a response as the client wrote it, without what has no effect; its parts are read by the engine.

    The validated object holds iterators, which cannot be sent between processes.
    """
    known = {name: value for name, value in (await request.json()).items() if name in type(body).model_fields}
    fixed = {"store": False, "priority": 0, "request_id": body.request_id}
    return known | fixed


async def _whole(turn: _Turn, method: str, body: Any) -> Any:
    ticket = await turn.enter()
    try:
        async with asyncio.timeout_at(ticket.deadline_s):
            whole = await turn.served.openai.whole(method, body)
    finally:
        ticket.close()
    turn.served.heard()
    turn.note.prompt_tokens, turn.note.completion_tokens = whole.prompt_tokens, whole.completion_tokens
    return whole


async def _stream(turn: _Turn, method: str, body: Any, shows_usage: bool) -> AsyncGenerator[str, None]:
    """The engine's events, without a usage that was not asked for."""
    ticket = await turn.enter()
    try:
        async with turn.served.openai.events(method, body, ticket.deadline_s) as events, aclosing(events):
            async for text in within(events, ticket.deadline_s):
                turn.served.heard()
                if '"choices":[]' in text.replace(" ", "") or _COMPLETED in text:
                    text = _without_usage(text, turn.note, shows_usage)
                if text:
                    yield text
    finally:
        ticket.close()


def _take_out_what_has_no_effect(body: Any, served: Served) -> list[str]:
    """Drop what this engine cannot take and need not; the names of the fields that would have had an effect."""
    ignored = sorted(body.model_extra or {})[:20]
    for name in list(body.model_extra or {}):
        delattr(body, name)
    if getattr(body, "seed", None) is not None and not served.takes_seed:
        # A seeded request ends an engine on a CPU. With a temperature of 0 a seed changes nothing.
        body.seed = None
        ignored += [] if body.temperature == 0 else ["seed"]
    return [name for name in ignored if name.isidentifier() and name.isascii()]


def _refuse_streams(body: Any) -> None:
    scores = getattr(body, "prompt_logprobs", None) is not None or (
        getattr(body, "echo", False) and body.logprobs is not None
    )
    if scores and (body.n or 1) > 1:
        raise ApiError(
            422,
            "a prompt's log-probs are not streamed with n above 1; leave `stream` out",
            code="unsupported",
            param="n",
        )


async def _render_as_trained(body: Any, served: Served) -> None:
    """Give the engine's template what the recipe gives it, unless the client does, and stop where the turn ends.

    A model before training may name another end of sequence than the one that its template ends a turn with.
    """
    try:
        prompts, _ = await served.open()
    except ModelError:  # a template that the recipe cannot use: what the engine makes of it is its own matter
        return
    body.chat_template_kwargs = {**prompts.template_variables, **(body.chat_template_kwargs or {})}
    body.stop_token_ids = sorted({*(body.stop_token_ids or []), *prompts.turn.stop_ids})


def _ask_for_usage(body: Any) -> bool:
    """Make a stream end with its usage, for the log; returns whether the client asked for it."""
    shows = body.stream_options is not None and bool(body.stream_options.include_usage)
    asked = {} if body.stream_options is None else body.stream_options.model_dump(exclude_unset=True)
    body.stream_options = _stream_options(type(body)).validate_python({**asked, "include_usage": True})
    return shows


@cache
def _stream_options(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind.model_fields["stream_options"].annotation)


def _without_usage(text: str, note: Note, shows_usage: bool) -> str:
    kept = []
    for event in text.split("\n\n"):
        content = event.rpartition("data: ")[2]
        parsed = json.loads(content) if content.startswith("{") else {}
        if parsed.get("type") == "response.completed":
            usage = parsed["response"].get("usage") or {}
            _count(note, {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")})
        if parsed.get("choices") == [] and parsed.get("usage"):
            _count(note, parsed["usage"])
            if not shows_usage:
                continue
        kept.append(event)
    return "\n\n".join(kept)


def _count(note: Note, usage: dict[str, Any]) -> None:
    note.prompt_tokens += usage.get("prompt_tokens") or 0
    note.completion_tokens += usage.get("completion_tokens") or 0
