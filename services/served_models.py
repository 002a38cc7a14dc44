"""The served models: the current table, and which of them running requests use.

A request takes a model once and keeps it to its end, so that a switch of weights never mixes two models.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion

from .errors import ApiError

SamplerFactory = Callable[[Prompts], Sampler]

_LOADING = threading.Lock()
"""Tokenizers are loaded one at a time: transformers imports its parts at their first use, which two threads cannot do at once."""


class Served:
    """One model with fixed weights: answers state its `name` and `revision`.

    `application` names the Serve application that holds its engine. `openai` answers the OpenAI routes, if there is
    an engine for them. `takes_seed` is False if a per-request seed would end the engine. `row_tokens` is the longest
    prompt and response together that the engine can score; None if only the recipe limits them. `context_tokens` is the
    longest prompt that it takes.
    """

    def __init__(
        self,
        name: str,
        revision: str,
        load_prompts: Callable[[], Prompts],
        sampler: SamplerFactory,
        *,
        application: str = "",
        openai: Any = None,
        takes_seed: bool = True,
        row_tokens: int | None = None,
        context_tokens: int = 2**20,
    ) -> None:
        self.name = name
        self.revision = revision
        self.application = application
        self.openai = openai
        self.takes_seed = takes_seed
        self.row_tokens = row_tokens
        self.context_tokens = context_tokens
        self.in_hand = 0
        """Requests that use it now."""
        self.heard_s = float("-inf")
        """Time of its engine's last output, by `time.monotonic`."""
        self._next = asyncio.Event()
        self._load_prompts = load_prompts
        self._new_sampler = sampler
        self._opening = asyncio.Lock()
        self._opened: tuple[Prompts, Sampler] | None = None

    async def open(self) -> tuple[Prompts, Sampler]:
        """Its prompts and sampler; the first call loads the tokenizer."""
        async with self._opening:
            if self._opened is None:
                prompts = await asyncio.to_thread(self._load)
                self._opened = prompts, _Heard(self._new_sampler(prompts), self)
            return self._opened

    def _load(self) -> Prompts:
        with _LOADING:
            return self._load_prompts()

    def heard(self) -> None:
        """Record that its engine has just produced output, for any request."""
        self.heard_s = time.monotonic()
        self._next.set()
        self._next = asyncio.Event()

    async def next_output(self) -> None:
        """Wait until its engine produces output."""
        await self._next.wait()


class _Heard:
    """A sampler that records each answer as a sign of life of the engine."""

    def __init__(self, sampler: Sampler, served: Served) -> None:
        self._sampler = sampler
        self._served = served

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        completions = await self._sampler.sample(prompt_ids, n=n, params=params)
        self._served.heard()
        return completions

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        logprobs = await self._sampler.score(prompt_ids, response_ids)
        self._served.heard()
        return logprobs


class Models:
    """The table of served models, replaced as a whole."""

    def __init__(self) -> None:
        self._all: list[Served] = []
        self.served: dict[str, Served] = {}
        self.default = ""

    def replace(self, models: list[Served], default: str) -> None:
        """Give new requests these models; running requests keep theirs."""
        self.served = {model.name: model for model in models}
        self.default = default
        # A model that left the table stays here as long as a request uses it.
        self._all = [model for model in self._all if model.in_hand and model not in models] + models

    def in_hand(self, application: str) -> int:
        """Number of requests that use the engine of a Serve application."""
        return sum(model.in_hand for model in self._all if model.application == application)

    def find(self, name: str | None) -> Served:
        """The model with that name, by default the default one.

        Raises:
            ApiError: 404, naming the served models.
        """
        served = self.served.get(self.default if name is None else name)
        if served is None:
            known = ", ".join(self.served)
            raise ApiError(404, f"there is no model {name!r}; there are {known}", code="model_not_found", param="model")
        return served

    @contextmanager
    def taken(self, name: str | None) -> Iterator[Served]:
        """As `find`, held for the length of a request."""
        served = self.find(name)
        served.in_hand += 1
        try:
            yield served
        finally:
            served.in_hand -= 1
