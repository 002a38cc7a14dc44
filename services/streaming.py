"""Answers that take their time: what they hold is let go when they end, and when their client goes away."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from services.errors import GoneError

UNREAD_S = 60.0
"""A client that takes nothing of a stream for so long is gone."""


class HeldResponse(StreamingResponse):
    """A stream that lets go of `held` once it is over, even one that was never begun, or that its client does not read."""

    def __init__(self, content: AsyncGenerator[str, None], held: AsyncExitStack, **more: Any) -> None:
        super().__init__(content, **more)
        self._content = content
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_or_gone(message: Message) -> None:
            try:
                async with asyncio.timeout(UNREAD_S):
                    await send(message)
            except TimeoutError:
                raise GoneError from None

        async with self._held, aclosing(self._content):
            await super().__call__(scope, receive, send_or_gone)


async def or_gone(receive: Receive, work: Any) -> Any:
    """Await `work`, and cancel it when the client goes away, so that its sampling ends.

    Raises:
        GoneError: it went away.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneError
    finally:
        gone.cancel()
        await ended([task])


async def ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what is still at work, and wait until it has stopped."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
