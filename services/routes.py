"""Our own routes: rewrite, batch, verify, examples, models."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from offsft.data.tables import opinion_rows
from offsft.demo.problems import generate
from offsft.records import Attempt, Problem

from . import schemas
from .admission import Ticket
from .bodies import checked_route
from .dependencies import Dependencies
from .errors import ApiError, ErrorBody, api_error, body_of
from .middleware import Note, note_of
from .rewriting import Prepared, attempt_told
from .served_models import Served
from .streaming import STREAM_HEADERS, HeldResponse, begin, cancel_and_wait, or_gone

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": ErrorBody,
        "description": "The body is not valid JSON, or a field is missing, unknown or of a wrong type.",
    },
    401: {"model": ErrorBody, "description": "No valid API key."},
    404: {"model": ErrorBody, "description": "No such model."},
    413: {"model": ErrorBody, "description": "The body is larger than limits.body_bytes."},
    422: {"model": ErrorBody, "description": "A figure is beyond its limit, or the problem cannot be used."},
    429: {"model": ErrorBody, "description": "Too many requests of this key; see Retry-After."},
    503: {"model": ErrorBody, "description": "The queue is full or an engine is being restarted; see Retry-After."},
    504: {"model": ErrorBody, "description": "The request took longer than limits.deadline_s."},
}
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {"enum": ["start", "stage", "attempt", "result", "error", "message"]},
        "data": {"type": "string", "description": "JSON; `[DONE]` at the very end."},
    },
}
_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}
_LINES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}}
_EXAMPLES = 6


def router(parts: Dependencies) -> APIRouter:
    """Our routes over their dependencies."""
    routes = APIRouter(prefix="/v1", responses=ERRORS, route_class=checked_route(parts.limits))
    _add_rewriting(routes, parts)
    _add_verifying(routes, parts)
    _add_models(routes, parts)
    return routes


def _add_rewriting(routes: APIRouter, parts: Dependencies) -> None:

    @routes.post("/rewrite", response_model=schemas.RewriteAnswer, responses=_EVENTS, tags=["rewrite"])
    async def rewrite(body: schemas.RewriteRequest, request: Request) -> Any:
        """Take a problem through the stages of the cascade; with `stream`, server-sent events report progress."""
        note = note_of(request.scope)
        async with AsyncExitStack() as stack:
            served = stack.enter_context(parts.models.taken(body.model))
            note.model = f"{served.name}@{served.revision}"
            asked = await parts.rewriter.prepare(body, served)
            if not body.stream:
                return await or_gone(request.receive, _whole(parts, asked, note))

            def on_error(error: Exception) -> str:
                parts.log_unexpected(error, note.request_id)
                told = body_of(api_error(error, parts.limits.retry_after_s, note.request_id))
                return _event("error", told) + "data: [DONE]\n\n"

            events = _events(parts, asked, note, parts.rewriter.stages(body))
            begun = await begin(events, stack, request.receive, parts.limits.comment_s, on_error)
            return HeldResponse(begun, stack.pop_all(), media_type="text/event-stream", headers=STREAM_HEADERS)

    @routes.post("/rewrite/batch", response_class=StreamingResponse, responses=_LINES, tags=["rewrite"])
    async def batch(body: schemas.BatchRequest, request: Request) -> StreamingResponse:
        """Rewrite several problems; one JSON line each when ready: `{"index", "result"}` or `{"index", "error"}`."""
        limit = parts.limits.batch_problems
        if len(body.problems) > limit:
            figure = f"the batch has {len(body.problems)} problems, and the limit is {limit}"
            raise ApiError(422, figure, code="beyond_limit", param="problems")
        note = note_of(request.scope)
        async with AsyncExitStack() as stack:
            served = stack.enter_context(parts.models.taken(body.model))
            note.model = f"{served.name}@{served.revision}"
            lines = _lines(parts, body, served, note)
            return HeldResponse(lines, stack.pop_all(), media_type="application/x-ndjson", headers=STREAM_HEADERS)


def _add_verifying(routes: APIRouter, parts: Dependencies) -> None:
    @routes.post("/verify", response_model=schemas.VerifyAnswer, response_model_exclude_unset=True, tags=["rewrite"])
    async def verify(body: schemas.VerifyRequest, request: Request) -> schemas.VerifyAnswer:
        """Compare a response's final answer with the reference."""
        if body.verifier not in (None, parts.verifier_kind):
            figure = f"there is no verifier {body.verifier!r} here; there is {parts.verifier_kind}"
            raise ApiError(422, figure, code="unknown_verifier", param="verifier")
        # No model works on it, and its places are counted apart.
        ticket = await or_gone(request.receive, parts.gate.enter(note_of(request.scope).key))
        try:
            verdict = await parts.rewriter.verifier(body.response, Problem("", "", "", body.answer))
        finally:
            ticket.close()
        told: dict[str, Any] = {"outcome": verdict.outcome, "extracted": verdict.extracted}
        if verdict.opinions:
            told["opinions"] = opinion_rows(verdict.opinions)
        return schemas.VerifyAnswer.model_validate(told)

    examples = [
        schemas.Example(name=f"Word problem {number}", **row)
        for number, row in enumerate(generate(_EXAMPLES, split="held_out", seed=1), start=1)
    ]

    @routes.get("/examples", response_model=schemas.Examples, tags=["rewrite"])
    async def examples_(request: Request) -> schemas.Examples:
        """Return a few problems to try."""
        return schemas.Examples(examples=examples)


def _add_models(routes: APIRouter, parts: Dependencies) -> None:
    started_s = int(time.time())

    def card(served: Served) -> schemas.ModelCard:
        return schemas.ModelCard(
            id=served.name,
            created=started_s,
            owned_by="offsft",
            revision=served.revision,
            default=served.name == parts.models.default,
        )

    @routes.get("/models", response_model=schemas.ModelList, tags=["models"])
    async def models() -> schemas.ModelList:
        """List the served models."""
        return schemas.ModelList(data=[card(served) for served in parts.models.served.values()])

    @routes.get("/models/{model}", response_model=schemas.ModelCard, tags=["models"])
    async def model_(model: str) -> schemas.ModelCard:
        """Return one served model."""
        return card(parts.models.find(model))


async def _enter(parts: Dependencies, asked: Prepared, note: Note) -> Ticket:
    """Wait for the places that a rewrite needs."""
    return await parts.gate.enter(note.key, asked.served.name, sequences=asked.sequences, tokens=asked.tokens)


async def _whole(parts: Dependencies, asked: Prepared, note: Note) -> Any:
    ticket = await _enter(parts, asked, note)
    try:
        async with asyncio.timeout_at(ticket.deadline_s):
            return await parts.rewriter.rewrite(asked, note, queued_s=ticket.queued_s)
    finally:
        ticket.close()


class _Teller:
    """An observer of the cascade that turns its progress into events."""

    def __init__(self, events: asyncio.Queue[tuple[str, Any] | None]) -> None:
        self._events = events

    def wave(self, stage: str, n: int) -> None:
        self._events.put_nowait(("stage", {"stage": stage, "n": n}))

    def attempt(self, attempt: Attempt) -> None:
        self._events.put_nowait(("attempt", attempt_told(attempt, text=True)))


async def _events(parts: Dependencies, asked: Prepared, note: Note, stages: list[str]) -> AsyncGenerator[str, None]:
    """Server-sent events of one rewrite."""
    events: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
    ticket = await _enter(parts, asked, note)

    async def work() -> None:
        try:
            async with asyncio.timeout_at(ticket.deadline_s):
                answer = await parts.rewriter.rewrite(asked, note, queued_s=ticket.queued_s, observer=_Teller(events))
            events.put_nowait(("result", answer.model_dump(mode="json")))
        except Exception as error:  # any error: the answer has begun, so the client gets it as an event
            events.put_nowait(("error", body_of(api_error(error, parts.limits.retry_after_s, note.request_id))))
            parts.log_unexpected(error, note.request_id)
        finally:
            events.put_nowait(None)

    task = asyncio.ensure_future(work())
    served = asked.served
    try:
        opening = {"id": note.request_id, "model": served.name, "revision": served.revision, "stages": stages}
        yield _event("start", opening)
        while (event := await events.get()) is not None:
            yield _event(*event)
        yield "data: [DONE]\n\n"
    finally:
        await cancel_and_wait([task])
        ticket.close()


async def _lines(
    parts: Dependencies, body: schemas.BatchRequest, served: Served, note: Note
) -> AsyncGenerator[str, None]:
    """One line per problem, in order of completion; each waits for its own places, like a request."""
    at_once = asyncio.Semaphore(parts.limits.batch_at_once)

    async def one(index: int, problem: schemas.RewriteProblem) -> dict[str, Any]:
        async with at_once:
            try:
                answer = await _whole(parts, await parts.rewriter.prepare(problem, served), note)
                return {"index": index, "result": answer.model_dump(mode="json")}
            except Exception as error:  # any error concerns this problem alone
                parts.log_unexpected(error, note.request_id)
                return {"index": index, **body_of(api_error(error, parts.limits.retry_after_s, note.request_id))}

    tasks = [asyncio.ensure_future(one(index, problem)) for index, problem in enumerate(body.problems)]
    try:
        for ready in asyncio.as_completed(tasks):
            yield json.dumps(await ready) + "\n"
    finally:
        await cancel_and_wait(list(tasks))


def _event(name: str, content: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
