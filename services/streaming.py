"""Long-running answers, which release their resources when they end or their client disconnects."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from .errors import GoneError

UNREAD_S = 60.0
"""Seconds without a read after which a stream's client is considered gone."""


class HeldResponse(StreamingResponse):
    """A stream that releases `held` at its end, even if it was never begun or its client does not read it."""

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


STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of a stream: nobody keeps it, and nginx passes each event on."""
_COMMENT = ": waiting\n\n"


async def begin(
    events: AsyncGenerator[str, None],
    held: AsyncExitStack,
    receive: Receive,
    comment_s: float,
    on_error: Callable[[Exception], str],
) -> AsyncGenerator[str, None]:
    """Wait for a stream's first event, so that what fails before it is an answer of its own status.

    After `comment_s` seconds without an event, the stream begins all the same, with a comment as a sign of life, and
    another one after each such time; whatever fails from then on is the event that `on_error` makes.

    `held` ends the events when it is closed: the stream that is returned may never be begun, and would end nothing.

    Raises:
        GoneError: the client disconnected.
        Exception: what the stream raised before its first event.
    """
    coming: list[asyncio.Future[str]] = [asyncio.ensure_future(anext(events))]

    async def end() -> None:
        await cancel_and_wait(coming)
        await events.aclose()

    held.push_async_callback(end)
    await or_gone(receive, asyncio.wait(coming, timeout=comment_s))
    (first,) = coming
    if first.done() and not isinstance(first.exception(), StopAsyncIteration):
        first.result()
    return _with_comments(events, coming, comment_s, on_error)


async def _with_comments(
    events: AsyncGenerator[str, None],
    coming: list[asyncio.Future[str]],
    comment_s: float,
    on_error: Callable[[Exception], str],
) -> AsyncGenerator[str, None]:
    """The events, of which the next one is the task in `coming`."""
    while True:
        try:
            done, _ = await asyncio.wait(coming, timeout=comment_s)
            yield coming[0].result() if done else _COMMENT
        except StopAsyncIteration:
            return
        except Exception as error:  # any error: the answer has begun, so the client gets it as an event
            yield on_error(error)
            return
        if done:
            coming[0] = asyncio.ensure_future(anext(events))


async def within(events: AsyncGenerator[str, None], deadline_s: float) -> AsyncGenerator[str, None]:
    """The events until a deadline, in the loop's time. Each may be awaited by another task, unlike one `timeout` around all.

    Raises:
        TimeoutError: an event did not come before it.
    """
    while True:
        async with asyncio.timeout_at(deadline_s):
            try:
                event = await anext(events)
            except StopAsyncIteration:
                return
        yield event


async def or_gone(receive: Receive, work: Any) -> Any:
    """Await `work`, and cancel it if the client disconnects, so that its sampling ends.

    Raises:
        GoneError: the client disconnected.
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
        await cancel_and_wait([task])


async def cancel_and_wait(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel the tasks that still run, and wait until they have stopped."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
