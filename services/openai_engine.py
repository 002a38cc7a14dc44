"""A model's engine for the OpenAI routes, over the handle of its deployment (`services.generator.EngineServer`)."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import ray.exceptions
from ray.serve.exceptions import RayServeException

from offsft.errors import EngineError
from offsft.inference.engines.serve import WholeAnswer, engine_error, whole_answer

from .errors import ApiError

_TOO_LONG = ("input_tokens", "input_text")
"""What vLLM names as the field of a prompt beyond the context."""
_ERROR_EVENT = 'data: {"error"'


class OpenAiEngine:
    """Sends requests to the engine; `route` is a method of its server, a body is ray.serve.llm's request for it."""

    def __init__(
        self, handle: Any, model: str, extra: dict[str, Any] | None = None, context_tokens: int | None = None
    ) -> None:
        """`model` is the engine's name for it; `extra` are fields that it wants beside a client's.

        `context_tokens` are told to a client whose prompt is longer.
        """
        self._model = model
        self._context_tokens = context_tokens
        self._extra = extra or {}
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def whole(self, route: str, body: Any) -> WholeAnswer:
        """Answer a request that does not stream, with one message each way.

        Raises:
            ApiError: the engine refused the request, with its reason, or failed on it.
            EngineError: the engine died or does not answer.
        """
        whole = await whole_answer(self._handle, route, self._addressed(body), Hint.of(body))
        if whole.status != 200:
            raise self._failure(whole.status, whole.text, whole.kind, whole.param, body)
        return whole

    def _addressed(self, body: Any) -> Any:
        """The request with the engine's name for its model."""
        fields = {"model": self._model, **self._extra}
        if isinstance(body, dict):
            return body | fields
        for name, value in fields.items():
            setattr(body, name, value)
        return body

    @asynccontextmanager
    async def events(self, route: str, body: Any, deadline_s: float) -> AsyncIterator[AsyncGenerator[str, None]]:
        """The server-sent events of a streaming request; leaving the block ends the engine's work on it.

        `deadline_s` is for the first event, in the loop's time.

        Raises:
            ApiError: the engine refused the request, with its reason, or failed on it.
            EngineError: the engine died before its first event.
            TimeoutError: there was none before the deadline.

        The events themselves raise the same.
        """
        answers = self._streaming.events.remote(route, self._addressed(body), Hint.of(body))
        over = False

        async def join_events(batch: str) -> AsyncGenerator[str, None]:
            """Join the events of each batch: those of a few milliseconds arrive as one message."""
            nonlocal over
            yield batch
            try:
                async for later in answers:
                    yield self._text(later, body)
            except (ray.exceptions.RayError, RayServeException) as error:
                raise engine_error(error) from error
            over = True

        try:
            try:
                async with asyncio.timeout_at(deadline_s):
                    first = await anext(answers)
            except (ray.exceptions.RayError, RayServeException) as error:
                raise engine_error(error) from error
            yield join_events(self._text(first, body))
        finally:
            if not over:
                answers.cancel()

    def _text(self, batch: list[Any], body: Any) -> str:
        """The events of a batch as text.

        Raises:
            ApiError, EngineError: one of them is an error.
        """
        for event in batch:
            told = event.error if hasattr(event, "error") else None
            if isinstance(event, str) and event.startswith(_ERROR_EVENT):
                error = json.loads(event.removeprefix("data: ").partition("\n")[0])["error"]
                status, kind = error.get("code") or 500, error.get("type", "")
                raise self._failure(status, error["message"], kind, error.get("param"), body)
            if told is not None:
                raise self._failure(told.code, told.message, told.type, told.param, body)
        return "".join(batch)

    def _failure(self, status: int, message: str, kind: str, param: str | None, body: Any) -> Exception:
        """The exception for an engine's answer: the client's mistake, the engine's death, or a fault of ours."""
        if status == 503:
            return EngineError(f"the engine did not answer: {kind}")
        if status >= 500 and status != 501:
            return ApiError(500, f"{message}; the log has it under request {_id_of(body)}", code="internal_error")
        if param in _TOO_LONG:
            field = next(name for name in ("messages", "prompt", "input") if name in _names(body))
            # OpenAI's own words, by which LiteLLM and others know a conversation that they have to shorten.
            limit = "exceeded" if self._context_tokens is None else f"{self._context_tokens} tokens"
            message = f"{field}: this model's maximum context length is {limit}, with the tokens that are asked for"
            return ApiError(status, message, code="context_length_exceeded", param=field)
        # vLLM repeats the field and its value behind the message.
        message = message.partition(" (parameter=")[0]
        code = "invalid_value" if status == 400 else kind
        return ApiError(status, message, code=code, param=param or _culprit(message, body))


@dataclass(frozen=True)
class Hint:
    """The text of a request whose own object does not show it, for a router that goes by the beginnings of prompts."""

    prompt: str

    @classmethod
    def of(cls, body: Any) -> "Hint":
        return cls(str(body.get("input", ""))) if isinstance(body, dict) else cls("")


_GRAMMARS = ("structured_outputs", "response_format")


def _culprit(message: str, body: Any) -> str | None:
    """The field that a refusal without one is about: the first of the request's that it names, else its grammar."""
    named = next((word for word in re.findall(r"\w+", message) if word in _names(body)), None)
    grammars = [name for name in _GRAMMARS if _names(body).get(name) is not None]
    return named or (grammars[0] if grammars else None)


def _names(body: Any) -> dict[str, Any]:
    """The fields that a client gave, by name."""
    return body if isinstance(body, dict) else {name: getattr(body, name) for name in body.model_fields_set}


def _id_of(body: Any) -> str:
    return str(body.get("request_id") if isinstance(body, dict) else getattr(body, "request_id", ""))
