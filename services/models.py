"""The models that are served: which there are now, and which of them each request has in hand.

A request takes a model once and keeps it to its end, so a switch to other weights in between does not mix two models.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion
from services.errors import ApiError

SamplerFactory = Callable[[Prompts], Sampler]


class Served:
    """One model with its weights as they are: `name` and `revision` are what answers say.

    `application` names the Serve application that holds its engine. `openai` answers the OpenAI routes, where there is
    an engine for them. `takes_seed` is False where a request's own seed would end the engine.
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
    ) -> None:
        self.name = name
        self.revision = revision
        self.application = application
        self.openai = openai
        self.takes_seed = takes_seed
        self.in_hand = 0
        """Requests that work with it now."""
        self.heard_s = float("-inf")
        """When its engine last put something out, in the time of `time.monotonic`."""
        self._next = asyncio.Event()
        self._load_prompts = load_prompts
        self._new_sampler = sampler
        self._opening = asyncio.Lock()
        self._opened: tuple[Prompts, Sampler] | None = None

    async def open(self) -> tuple[Prompts, Sampler]:
        """Its prompts and sampler; the tokenizer is loaded the first time."""
        async with self._opening:
            if self._opened is None:
                prompts = await asyncio.to_thread(self._load_prompts)
                self._opened = prompts, _Heard(self._new_sampler(prompts), self)
            return self._opened

    def heard(self) -> None:
        """Its engine has put something out just now, whoever it was for."""
        self.heard_s = time.monotonic()
        self._next.set()
        self._next = asyncio.Event()

    async def next_output(self) -> None:
        """Wait until its engine puts something out."""
        await self._next.wait()


class _Heard:
    """A sampler each of whose answers shows that the engine lives."""

    def __init__(self, sampler: Sampler, served: Served) -> None:
        self._sampler = sampler
        self._served = served

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        completions = await self._sampler.sample(prompt_ids, n=n, params=params)
        self._served.heard()
        return completions

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        logprobs = await self._sampler.score(prompt_ids, response_ids)
        self._served.heard()
        return logprobs


class Models:
    """The table of served models; replaced as a whole."""

    def __init__(self) -> None:
        self._all: list[Served] = []
        self.served: dict[str, Served] = {}
        self.default = ""

    def replace(self, models: list[Served], default: str) -> None:
        """From now on requests get these; those that have one in hand keep it."""
        self.served = {model.name: model for model in models}
        self.default = default
        # One that is gone from the table counts as long as a request has it.
        self._all = [model for model in self._all if model.in_hand and model not in models] + models

    def in_hand(self, application: str) -> int:
        """Requests that work with the engine of a Serve application."""
        return sum(model.in_hand for model in self._all if model.application == application)

    def find(self, name: str | None) -> Served:
        """The model of that name, or the default one.

        Raises:
            ApiError: 404, naming those that there are.
        """
        served = self.served.get(self.default if name is None else name)
        if served is None:
            known = ", ".join(self.served)
            raise ApiError(404, f"there is no model {name!r}; there are {known}", code="model_not_found", param="model")
        return served

    @contextmanager
    def taken(self, name: str | None) -> Iterator[Served]:
        """As `find`, for the length of a request."""
        served = self.find(name)
        served.in_hand += 1
        try:
            yield served
        finally:
            served.in_hand -= 1
