"""Request bodies: read within a time and a size, decompressed, and parsed as JSON that can be passed on."""

import asyncio
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from .errors import ApiError
from .settings import Limits

_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""The window sizes that tell zlib which of its formats to expect."""
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_HIGH, _LOW = range(0xD800, 0xDC00), range(0xDC00, 0xE000)


def checked_route(limits: Limits) -> type[APIRoute]:
    """The class of routes whose bodies are read by the rules of this file."""

    class CheckedRequest(Request):
        async def body(self) -> bytes:
            if not hasattr(self, "_decoded"):
                try:
                    async with asyncio.timeout(limits.body_s):
                        raw = await super().body()
                except TimeoutError:
                    message = f"the body did not arrive within {limits.body_s:g} s"
                    raise ApiError(408, message, code="body_too_slow") from None
                self._decoded = _decompress(raw, self.headers.get("content-encoding", ""), limits.body_bytes)
            return self._decoded

        async def json(self) -> Any:
            return parse_json(await self.body())

    class CheckedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def handle_checked(request: Request) -> Response:
                return await handle(CheckedRequest(request.scope, request.receive))

            return handle_checked

    return CheckedRoute


def parse_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        ApiError: 400, if it is not JSON, or holds a character that no text can hold.
        json.JSONDecodeError: the same for mistakes of syntax, which the framework reports with their place.
    """
    try:
        parsed = json.loads(body)
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise _not_json(f"byte {error.start} is not {error.encoding}") from None
    except RecursionError:
        raise _not_json("it is nested too deeply") from None
    except ValueError as error:  # a number of too many digits
        raise _not_json(str(error).partition(";")[0]) from None
    if _has_lone_surrogate(body):
        path = next(_surrogates(parsed), "body")
        raise ApiError(
            400,
            f"{path}: half a character (a lone surrogate, such as a cut emoji); send whole ones",
            code="invalid_value",
            param=None if path == "body" else path,
        )
    return parsed


def _not_json(reason: str) -> ApiError:
    return ApiError(400, f"the body is not valid JSON: {reason}", code="invalid_json")


def _decompress(raw: bytes, encoding: str, most: int) -> bytes:
    """The body without its content encodings, which are undone from last to first."""
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name in ("", "identity"):
            continue
        if name not in _ENCODINGS:
            message = f"the content encoding {name[:40]!r} is not accepted; send gzip, deflate or none"
            raise ApiError(415, message, code="unsupported_encoding", headers={"Accept-Encoding": "gzip, deflate"})
        raw = _inflate(raw, name, most)
    return raw


def _inflate(raw: bytes, name: str, most: int) -> bytes:
    inflater = zlib.decompressobj(_ENCODINGS[name])
    try:
        content = inflater.decompress(raw, most + 1)
    except zlib.error:
        raise ApiError(400, f"the body is not {name}, as its content-encoding says", code="invalid_encoding") from None
    if len(content) > most:
        raise ApiError(413, f"the body has more than {most} bytes once decompressed", code="body_too_large")
    if not inflater.eof or inflater.unused_data:
        raise ApiError(400, f"the body is not one whole {name} stream", code="invalid_encoding")
    return content


def _has_lone_surrogate(body: bytes) -> bool:
    """Whether an escape in the JSON is half a surrogate pair; linear, and without a second parse."""
    if b"\\u" not in body:
        return False
    waiting_until = -1
    """Where the other half of a pair must begin; -1 while no half is open."""
    for found in _ESCAPE.finditer(body):
        code = int(found[1], 16) if found[1] else 0
        if waiting_until >= 0:
            if found.start() != waiting_until or code not in _LOW:
                return True
            waiting_until = -1
        elif code in _LOW:
            return True
        elif code in _HIGH:
            waiting_until = found.end()
    return waiting_until >= 0


def _surrogates(value: Any, path: str = "") -> Iterator[str]:
    """The paths of texts that hold half a character."""
    if isinstance(value, str):
        if any(0xD800 <= ord(letter) < 0xE000 for letter in value):
            yield path or "body"
    elif isinstance(value, dict):
        for name, each in value.items():
            inner = f"{path}.{name}" if path else name
            if any(True for _ in _surrogates(name)):
                yield path or "body"
            yield from _surrogates(each, inner)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _surrogates(each, f"{path}.{index}" if path else str(index))
