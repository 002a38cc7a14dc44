"""A model's engine as the OpenAI routes ask it, over the handle of its deployment (`services.generator.Engine`)."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ray.exceptions
from ray.llm._internal.serve.core.ingress.utils import _sanitize_chat_completion_request
from ray.serve.exceptions import RayServeException
from ray.serve.llm.openai_api_models import ChatCompletionRequest

from offsft.errors import EngineError
from offsft.sampling.handle import Whole, engine_error, whole_answer
from services.errors import ApiError


class OpenAiEngine:
    """`route` is `chat` or `completions`; a body is the request of that route as ray.serve.llm has it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    async def whole(self, route: str, body: Any) -> Whole:
        """The answer to a request that asks for no stream: one message there, and one back.

        Raises:
            ApiError: the engine refused the request, and why.
            EngineError: the engine died or does not answer.
        """
        whole = await whole_answer(self._handle, route, _sendable(body))
        if whole.status != 200:
            raise _refused(whole.status, whole.text, whole.kind)
        return whole

    @asynccontextmanager
    async def events(self, route: str, body: Any) -> AsyncIterator[AsyncGenerator[str, None]]:
        """The server-sent events of a request that asks for a stream; after the block the engine works on it no more.

        Raises:
            ApiError: the engine refused the request, and why.
            EngineError: the engine died before its first event. Later that is for Ray's exceptions to tell.
        """
        answers = getattr(self._streaming, route).remote(_sendable(body))
        over = False

        async def joined(batch: list[str]) -> AsyncGenerator[str, None]:
            """Events come in batches: those of some milliseconds are one message."""
            nonlocal over
            yield "".join(batch)
            async for later in answers:
                yield "".join(later)
            over = True

        try:
            try:
                first = await anext(answers)
            except (ray.exceptions.RayError, RayServeException) as error:
                raise engine_error(error) from error
            refusal = first[0] if isinstance(first, list) else first
            if hasattr(refusal, "error"):
                raise _refused(refusal.error.code, refusal.error.message, refusal.error.type)
            yield joined(first)
        finally:
            if not over:
                answers.cancel()


def _refused(status: int, message: str, kind: str) -> Exception:
    """The client's own fault, or else the engine's."""
    if status < 500:
        return ApiError(status, message, code=kind)
    return EngineError(f"the engine did not answer: {kind}")


def _sendable(body: Any) -> Any:
    # Tool calls are validated lazily, by iterators that cannot be pickled.
    return _sanitize_chat_completion_request(body) if isinstance(body, ChatCompletionRequest) else body
