"""Our own routes: rewrite, batch, verify, examples, models."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from offsft.demo.problems import generate
from offsft.records import Attempt, Problem, Source
from services import wire
from services.errors import ApiError, ErrorBody, api_error, body_of
from services.front import Note, note_of
from services.gate import Ticket
from services.models import Served
from services.parts import Parts
from services.rewriting import attempt_told
from services.streaming import HeldResponse, ended, or_gone

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The body is no JSON, or a field is missing, unknown or of a wrong type."},
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


def router(parts: Parts) -> APIRouter:
    """The routes over what they work with."""
    routes = APIRouter(prefix="/v1", responses=ERRORS)
    _add_rewriting(routes, parts)
    _add_verifying(routes, parts)
    _add_models(routes, parts)
    return routes


def _add_rewriting(routes: APIRouter, parts: Parts) -> None:

    @routes.post("/rewrite", response_model=wire.RewriteAnswer, responses=_EVENTS, tags=["rewrite"])
    async def rewrite(body: wire.RewriteRequest, request: Request) -> Any:
        """Take a problem through self, guided and expert; with `stream`, server-sent events tell how it goes."""
        note = note_of(request.scope)
        async with AsyncExitStack() as stack:
            served = stack.enter_context(parts.models.taken(body.model))
            note.model = f"{served.name}@{served.revision}"
            ticket = await parts.gate.enter()
            stack.callback(ticket.close)
            if not body.stream:
                return await or_gone(request.receive, _within(ticket, parts, body, served, note))
            stages = parts.rewriter.stages(body)
            events = _events(parts, body, served, note, ticket, stages)
            return HeldResponse(
                events, stack.pop_all(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )

    @routes.post("/rewrite/batch", response_class=StreamingResponse, responses=_LINES, tags=["rewrite"])
    async def batch(body: wire.BatchRequest, request: Request) -> StreamingResponse:
        """Several problems; one JSON line for each as it is ready: `{"index", "result"}` or `{"index", "error"}`."""
        limit = parts.limits.batch_problems
        if len(body.problems) > limit:
            figure = f"the batch has {len(body.problems)} problems, and the limit is {limit}"
            raise ApiError(422, figure, code="beyond_limit", param="problems")
        note = note_of(request.scope)
        async with AsyncExitStack() as stack:
            served = stack.enter_context(parts.models.taken(body.model))
            note.model = f"{served.name}@{served.revision}"
            stack.callback((await parts.gate.enter()).close)
            lines = _lines(parts, body, served, note)
            return HeldResponse(lines, stack.pop_all(), media_type="application/x-ndjson")


def _add_verifying(routes: APIRouter, parts: Parts) -> None:
    @routes.post("/verify", response_model=wire.VerifyAnswer, tags=["rewrite"])
    async def verify(body: wire.VerifyRequest) -> wire.VerifyAnswer:
        """Compare a response's final answer with the reference."""
        if body.verifier not in (None, parts.verifier_kind):
            figure = f"there is no verifier {body.verifier!r} here; there is {parts.verifier_kind}"
            raise ApiError(422, figure, code="unknown_verifier", param="verifier")
        ticket = await parts.gate.enter()
        try:
            verdict = await parts.rewriter.verifier(body.response, Problem("", "", "", body.answer))
        finally:
            ticket.close()
        return wire.VerifyAnswer(outcome=verdict.outcome, extracted=verdict.extracted)

    examples = [
        wire.Example(name=f"Word problem {number}", **row)
        for number, row in enumerate(generate(_EXAMPLES, split="held_out", seed=1), start=1)
    ]

    @routes.get("/examples", response_model=wire.Examples, tags=["rewrite"])
    async def examples_(request: Request) -> wire.Examples:
        """A few problems to try."""
        return wire.Examples(examples=examples)


def _add_models(routes: APIRouter, parts: Parts) -> None:
    started_s = int(time.time())

    def card(served: Served) -> wire.ModelCard:
        return wire.ModelCard(
            id=served.name,
            created=started_s,
            owned_by="offsft",
            revision=served.revision,
            default=served.name == parts.models.default,
        )

    @routes.get("/models", response_model=wire.ModelList, tags=["models"])
    async def models() -> wire.ModelList:
        """The models that are served."""
        return wire.ModelList(data=[card(served) for served in parts.models.served.values()])

    @routes.get("/models/{model}", response_model=wire.ModelCard, tags=["models"])
    async def model_(model: str) -> wire.ModelCard:
        """One of them."""
        return card(parts.models.find(model))


async def _within(ticket: Ticket, parts: Parts, body: wire.RewriteRequest, served: Served, note: Note) -> Any:
    async with asyncio.timeout_at(ticket.deadline_s):
        return await parts.rewriter.rewrite(body, served, note, queued_s=ticket.queued_s)


class _Teller:
    """An observer of the cascade that turns what happens into events."""

    def __init__(self, events: asyncio.Queue[tuple[str, Any] | None]) -> None:
        self._events = events

    def wave(self, stage: Source, n: int) -> None:
        self._events.put_nowait(("stage", {"stage": str(stage), "n": n}))

    def attempt(self, attempt: Attempt) -> None:
        self._events.put_nowait(("attempt", attempt_told(attempt, text=True)))


async def _events(
    parts: Parts, body: wire.RewriteRequest, served: Served, note: Note, ticket: Ticket, stages: list[str]
) -> AsyncGenerator[str, None]:
    """Server-sent events of one rewrite."""
    events: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()

    async def work() -> None:
        try:
            async with asyncio.timeout_at(ticket.deadline_s):
                answer = await parts.rewriter.rewrite(
                    body, served, note, queued_s=ticket.queued_s, observer=_Teller(events)
                )
            events.put_nowait(("result", answer.model_dump(mode="json")))
        except Exception as error:  # whatever it is: the answer has begun, so the client is told in an event
            events.put_nowait(("error", body_of(api_error(error, parts.limits.retry_after_s))))
            parts.log_unexpected(error, note.request_id)
        finally:
            events.put_nowait(None)

    task = asyncio.ensure_future(work())
    try:
        opening = {"id": note.request_id, "model": served.name, "revision": served.revision, "stages": stages}
        yield _event("start", opening)
        while (event := await events.get()) is not None:
            yield _event(*event)
        yield "data: [DONE]\n\n"
    finally:
        await ended([task])


async def _lines(parts: Parts, body: wire.BatchRequest, served: Served, note: Note) -> AsyncGenerator[str, None]:
    """One line a problem, in the order they end; each has the deadline of a request, from when it is begun."""
    at_once = asyncio.Semaphore(parts.limits.batch_at_once)

    async def one(index: int, problem: wire.RewriteProblem) -> dict[str, Any]:
        async with at_once:
            try:
                async with asyncio.timeout(parts.limits.deadline_s):
                    answer = await parts.rewriter.rewrite(problem, served, note)
                return {"index": index, "result": answer.model_dump(mode="json")}
            except Exception as error:  # whatever it is, it is this problem's alone
                parts.log_unexpected(error, note.request_id)
                return {"index": index, **body_of(api_error(error, parts.limits.retry_after_s))}

    tasks = [asyncio.ensure_future(one(index, problem)) for index, problem in enumerate(body.problems)]
    try:
        for ready in asyncio.as_completed(tasks):
            yield json.dumps(await ready) + "\n"
    finally:
        await ended(list(tasks))


def _event(name: str, content: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
