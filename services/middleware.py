"""Middleware in front of every route: request id, access log and metrics, then keys, rate limits and body size."""

import logging
import time
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offsft.runtime.metrics import REQUEST_SECONDS, REQUEST_TOKENS, REQUESTS

from .access_log import AccessLogFile
from .admission import Rates
from .auth import Keys
from .errors import ApiError, GoneError, api_error, response_of
from .settings import Limits

_LONGEST_ID = 200
_GONE = 499
"""Status logged for a client that disconnected before its answer was complete."""
_LAST_EVENT = b"data: [DONE]\n\n"
"""The event at which streaming clients, OpenAI's included, disconnect without waiting for the end of the answer."""

logger = logging.getLogger(__name__)


@dataclass
class Note:
    """Facts about a request for its log line; routes add to it."""

    request_id: str
    key: str | None = None
    """Name of the key, never the key."""
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


def note_of(scope: MutableMapping[str, Any]) -> Note:
    """The note that `AccessLog` made for this request."""
    return scope["state"]["note"]


class AccessLog:
    """Outermost layer: gives each request an id, writes its log line at its end, and lets no exception out.

    It also answers HEAD as GET without the body, and sends an HTTP/1.0 client a stream in one piece: such a client does
    not know chunks, which the servers below would send.
    """

    def __init__(self, app: ASGIApp, log: AccessLogFile, retry_after_s: float, returns_id: bool) -> None:
        self._app = app
        self._retry_after_s = retry_after_s
        self._returns_id = returns_id
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = Note(Headers(scope=scope).get("x-request-id", "")[:_LONGEST_ID] or uuid.uuid4().hex)
        scope.setdefault("state", {})["note"] = note
        started_s = time.monotonic()
        status, ended, gone = 0, False, False
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        if scope.get("http_version") == "1.0":
            send = _in_one_piece(send)

        async def receive_or_hear_of_leaving() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or (message["type"] == "http.disconnect" and not ended)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._returns_id:
                    MutableHeaders(scope=message)["x-request-id"] = note.request_id
            if message["type"] == "http.response.body":
                ended = ended or not message.get("more_body") or message.get("body", b"").endswith(_LAST_EVENT)
                if method == "HEAD":
                    message = {**message, "body": b""}
            await send(message)

        try:
            await self._app(scope, receive_or_hear_of_leaving, send_with_id)
        except GoneError:
            logger.info("the client of request %s went away", note.request_id)
        except Exception as error:  # the last line of defence: whatever it is, the client gets no traceback
            logger.exception("request %s failed", note.request_id)
            if not status:
                await response_of(api_error(error, self._retry_after_s, note.request_id))(scope, receive, send_with_id)
        finally:
            # Also if it left before its body was read: nobody receives the framework's answer to half a body.
            scope["method"] = method
            self._write(scope, note, status if ended and not gone else _GONE, time.monotonic() - started_s)

    def _write(self, scope: Scope, note: Note, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        _measure(route or "other", note, status, seconds)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": note.request_id,
            "key": note.key,
            "method": scope["method"],
            "route": route or scope["path"][:200],
            "status": status,
            "model": note.model,
            "prompt_tokens": note.prompt_tokens,
            "completion_tokens": note.completion_tokens,
            "seconds": round(seconds, 4),
        }
        self._log.write(line)


def _measure(route: str, note: Note, status: int, seconds: float) -> None:
    key, model = note.key or "", (note.model or "").partition("@")[0]
    REQUESTS.add(key=key, route=route, status=str(status))
    REQUEST_SECONDS.observe(seconds, route=route)
    if model:
        REQUEST_TOKENS.add(note.prompt_tokens, key=key, model=model, kind="prompt")
        REQUEST_TOKENS.add(note.completion_tokens, key=key, model=model, kind="completion")


def _in_one_piece(send: Send) -> Send:
    """Send a response whose length is not known as one piece, with its length."""
    start: Message | None = None
    pieces: list[bytes] = []

    async def send_whole(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and "content-length" not in Headers(raw=message["headers"]):
            start = message
            return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            body = b"".join(pieces)
            MutableHeaders(scope=start)["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": body})

    return send_whole


_OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
_OPEN_UNDER = ("/assets/", "/readyz/", "/static-offline-docs/")
"""Paths that need no key; everything else does, whether there is such a route or not."""


class Guard:
    """Checks keys and rates of all routes but the open ones, and the size of every body before any of it is read."""

    def __init__(self, app: ASGIApp, keys: Keys, limits: Limits) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self._rates = Rates(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            if not _is_open(scope["path"]):
                note = note_of(scope)
                note.key = self._owner(headers)
                self._rates.take(note.key)
            declared = headers.get("content-length", "0")
            if declared.isdigit() and int(declared[:18]) > self._limits.body_bytes:
                raise self._too_large()
        except ApiError as error:
            await response_of(error)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limits.body_bytes:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _owner(self, headers: Headers) -> str | None:
        if not self._keys.required:
            return None
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        owner = self._keys.owner(presented.strip()) if scheme.lower() == "bearer" else None
        if owner is None:
            raise ApiError(401, "give a valid API key: `Authorization: Bearer <key>`", code="invalid_api_key")
        return owner

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body has more than {self._limits.body_bytes} bytes", code="body_too_large")


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_UNDER)
