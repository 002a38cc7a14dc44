"""The layers in front of every route: request id and access log, then keys, rates and the size of the body."""

import json
import logging
import sys
import time
import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offsft.config import Limits
from services.errors import ApiError, GoneError, api_error, response_of
from services.gate import Rates
from services.keys import Keys

_LONGEST_ID = 200
_GONE = 499
"""What the log says of a client that went away before its answer was complete."""

logger = logging.getLogger(__name__)


@dataclass
class Note:
    """What is known of a request, for its log line; routes add to it."""

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
    """Outermost: gives each request an id, writes its line as it ends, and lets no exception out."""

    def __init__(self, app: ASGIApp, path: str | None, retry_after_s: float, returns_id: bool) -> None:
        self._app = app
        self._retry_after_s = retry_after_s
        self._returns_id = returns_id
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Open as long as the process lives.
        self._file = sys.stdout if path is None else Path(path).open("a", encoding="utf-8")  # noqa: SIM115

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = Note(Headers(scope=scope).get("x-request-id", "")[:_LONGEST_ID] or uuid.uuid4().hex)
        scope.setdefault("state", {})["note"] = note
        started_s = time.monotonic()
        status, ended = 0, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._returns_id:
                    MutableHeaders(scope=message)["x-request-id"] = note.request_id
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body"))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except GoneError:
            logger.info("the client of request %s went away", note.request_id)
        except Exception as error:  # the last line of defence: whatever it is, the client gets no traceback
            logger.exception("request %s failed", note.request_id)
            if not status:
                await response_of(api_error(error, self._retry_after_s))(scope, receive, send_with_id)
        finally:
            self._write(scope, note, status if ended else _GONE, time.monotonic() - started_s)

    def _write(self, scope: Scope, note: Note, status: int, seconds: float) -> None:
        route = scope.get("route")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": note.request_id,
            "key": note.key,
            "method": scope["method"],
            "route": getattr(route, "path", None) or scope["path"][:200],
            "status": status,
            "model": note.model,
            "prompt_tokens": note.prompt_tokens,
            "completion_tokens": note.completion_tokens,
            "seconds": round(seconds, 4),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


class Guard:
    """Keys and rates of everything under /v1, and the size of every body, before any of it is read."""

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
            if scope["path"].startswith("/v1/"):
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
