"""One request to a model behind an OpenAI-compatible server, tried again while the server is busy or answers nonsense."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

_FIRST_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class ChatServer:
    """Where a model is asked and how patiently; the key is read from the environment variable `key_variable`."""

    url: str
    model: str
    key_variable: str
    tries: int
    timeout_s: float
    concurrency: int


class RefusedForGood(Exception):
    """The server does not know the model, or refuses the key: every further request would fail in the same way."""


class ChatModel:
    """A model on a server; `requests` counts what was sent."""

    def __init__(self, server: ChatServer) -> None:
        import openai

        self._server = server
        self._free = asyncio.Semaphore(server.concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=server.url,
            api_key=os.environ.get(server.key_variable) or "none",
            timeout=server.timeout_s,
            max_retries=0,  # retries are made here, where nonsense counts as a failure too
        )
        self.requests = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(
        self,
        prompt: str,
        *,
        temperature: float,
        max_tokens: int | None = None,
        trouble_of: Callable[[str, str], str] = lambda reply, finish_reason: "",
    ) -> tuple[str | None, str]:
        """The model's reply to one user turn, or None and the reason why there is no usable one after all tries.

        `trouble_of` is given a reply and why it ended, and says what is wrong with it; empty text means nothing.

        Raises:
            RefusedForGood: the server refuses the key or the model.
        """
        async with self._free:
            return await self._ask(prompt, temperature, max_tokens, trouble_of)

    async def _ask(
        self, prompt: str, temperature: float, max_tokens: int | None, trouble_of: Callable[[str, str], str]
    ) -> tuple[str | None, str]:
        import openai

        trouble = ""
        for tried in range(self._server.tries):
            if tried:
                await asyncio.sleep(_FIRST_WAIT_S * 2 ** (tried - 1))
            self.requests += 1
            try:
                made = await self._client.chat.completions.create(
                    model=self._server.model,
                    messages=[{"role": "user", "content": prompt}],
                    temperature=temperature,
                    max_tokens=openai.omit if max_tokens is None else max_tokens,
                )
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                raise RefusedForGood(str(error)) from None
            except openai.BadRequestError as error:  # the same request would be refused again
                return None, f"the server refused the request: {error}"
            except openai.OpenAIError as error:
                trouble = f"{type(error).__name__}: {error}"
                continue
            choice = made.choices[0] if made.choices else None
            reply = (choice.message.content if choice else None) or ""
            trouble = trouble_of(reply, choice.finish_reason if choice else "")
            if not trouble:
                return reply, ""
        return None, trouble
