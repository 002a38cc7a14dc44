"""An engine behind any OpenAI-compatible server: prompts go to POST {url}/completions as token ids or text.

Servers differ. One that supports vLLM's extensions (vLLM itself, offsft's own services) takes and returns token ids and
scores rows. For any other the text is tokenized again, rows are not scored, and there are no log-probs: a sampled text
need not split into the tokens that it was sampled as. Requests are retried while the server is busy, unreachable or
answers nonsense; a permanent refusal ends the job with the server's own reason.
"""

import asyncio
import json
import logging
import math
import os
import random
import time
from typing import Any

import openai
import pydantic

from offsft.config import EngineConfig
from offsft.errors import EngineError
from offsft.inference.engines.base import EngineSetup, Usage
from offsft.prompts import Prompts
from offsft.protocols import SamplingParams
from offsft.records import Completion

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 60.0
_FOR_GOOD = frozenset({400, 401, 403, 404, 405, 413, 422})
"""HTTP statuses of a request that would be refused again."""

logger = logging.getLogger(__name__)


def check(engine: EngineConfig) -> None:
    """Check nothing beyond the settings' own validation: the server is asked when sampling begins."""


def open_engine(setup: EngineSetup, prompts: Prompts) -> "RemoteSampler":
    return RemoteSampler(setup, prompts)


class _Logprobs(pydantic.BaseModel):
    token_logprobs: list[float | None] = []


class _Scored(pydantic.BaseModel):
    logprob: float


class _Choice(pydantic.BaseModel):
    index: int = 0
    text: str
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: list[dict[int, _Scored] | None] | None = None


class _Usage(pydantic.BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Answer(pydantic.BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class RemoteSampler:
    """Samples from the server's model named `engine.remote.model`; `usage` counts its requests and tokens so far."""

    def __init__(self, setup: EngineSetup, prompts: Prompts) -> None:
        remote, engine = setup.engine.remote, setup.engine
        self._remote = remote
        self._prompts = prompts
        self._logprobs_hold = remote.logprobs == "processed" or (remote.logprobs == "raw" and setup.raw_distribution)
        self._free = asyncio.Semaphore(remote.concurrency)
        # Each engine of the pool keeps to its share of the run's rate limit.
        self._pace = Pace(
            remote.requests_per_minute and remote.requests_per_minute / (engine.actors_max or engine.actors)
        )
        self._client = openai.AsyncOpenAI(
            base_url=remote.url,
            api_key=os.environ.get(remote.key_variable) or "none",
            timeout=remote.timeout_s,
            max_retries=0,  # retries are made here, where they count against the rate limit and the tries
        )
        self._told_of_text = False
        self.trouble = ""
        """What the last request waits for, if it is tried again."""
        self.usage = Usage()

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        body: dict[str, Any] = {
            "n": n,
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if self._remote.logprobs != "none":
            body["logprobs"] = 1
        if self._remote.vllm_extensions:
            body["stop_token_ids"] = list(self._prompts.turn.stop_ids)
        else:
            body["stop"] = [self._prompts.text([self._prompts.end_of_turn])]
        answer = await self._ask(prompt_ids, body, choices=n)
        return [self._completion(choice) for choice in sorted(answer.choices, key=lambda choice: choice.index)]

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        """Log-probs of the response, or None for a server without vLLM's extensions."""
        if not self._remote.vllm_extensions:
            return None
        body = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        answer = await self._ask([*prompt_ids, *response_ids], body, choices=1)
        positions = (answer.choices[0].prompt_logprobs or [])[len(prompt_ids) :]
        known = [(scored or {}).get(token) for scored, token in zip(positions, response_ids, strict=False)]
        logprobs = [each.logprob for each in known if each is not None]
        if len(logprobs) != len(response_ids):
            raise EngineError(
                f"engine.remote: {self._remote.url} gave no log-probs of a prompt; set engine.remote.vllm_extensions=false"
                " to rewrite without scores"
            )
        return logprobs

    def _completion(self, choice: _Choice) -> Completion:
        reason = choice.finish_reason or "aborted"
        if choice.token_ids is not None:
            return Completion(choice.text, choice.token_ids, self._logprobs(choice, len(choice.token_ids)), reason)
        if not self._told_of_text:
            self._told_of_text = True
            logger.warning("%s returns no token ids: texts are tokenised anew, without log-probs", self._remote.url)
        ids = self._prompts.sampled(choice.text, ended=reason == "stop")
        return Completion(choice.text, ids, None, reason)

    def _logprobs(self, choice: _Choice, tokens: int) -> list[float] | None:
        """Log-probs under the distribution that was sampled from; None if the server did not return all of them."""
        if not self._logprobs_hold or choice.logprobs is None:
            return None
        found = [each for each in choice.logprobs.token_logprobs if each is not None and math.isfinite(each)]
        return found if len(found) == tokens else None

    async def _ask(self, prompt_ids: list[int], body: dict[str, Any], *, choices: int) -> _Answer:
        """Send a request and return the server's answer.

        Raises:
            EngineError: it refuses the request permanently, or gave no answer in `tries` tries.
        """
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        extensions = neutral if self._remote.vllm_extensions else {}
        prompt = prompt_ids if self._remote.prompts == "ids" else self._prompts.text(prompt_ids)
        whole = {"model": self._remote.model, "prompt": prompt, **extensions, **body}
        trouble, wait_s = "", 0.0
        async with self._free:
            for tried in range(self._remote.tries):
                await asyncio.sleep(wait_s)
                await self._pace.wait()
                try:
                    answer = await self._client.post("/completions", cast_to=object, body=whole)
                    self.trouble = ""
                    return self._counted(answer, choices)
                except openai.APIStatusError as error:
                    if error.status_code in _FOR_GOOD:
                        raise EngineError(self._refusal(error)) from None
                    trouble, wait_s = f"status {error.status_code}", _wait_s(tried, error.response.headers)
                except (openai.APIError, *_NONSENSE) as error:
                    trouble, wait_s = _reason(error), _wait_s(tried, {})
                self.trouble = f"the server gave {trouble}, try {tried + 1} of {self._remote.tries}"
        raise EngineError(
            f"engine.remote: {self._remote.url} gave no answer in {self._remote.tries} tries (engine.remote.tries), at last:"
            f" {trouble}; the same command continues from here"
        )

    def _counted(self, answer: object, choices: int) -> _Answer:
        """Parse the answer and count its tokens, which are paid for whether it is usable or not."""
        parsed = _Answer.model_validate(answer)
        used = parsed.usage or _Usage()
        self.usage = self.usage.plus(Usage(1, used.prompt_tokens, used.completion_tokens or 0))
        if len(parsed.choices) != choices:
            raise _NonsenseError(f"{len(parsed.choices)} choices instead of {choices}")
        return parsed

    def _refusal(self, error: openai.APIStatusError) -> str:
        said = error.body.get("message") if isinstance(error.body, dict) else None
        reason = " ".join(str(said or error.message).split())[:300]
        advice = {
            401: f"; check the key in the environment variable {self._remote.key_variable} (engine.remote.key_variable)",
            404: "; check engine.remote.url and engine.remote.model",
        }.get(error.status_code, "")
        return f"engine.remote: {self._remote.url} refuses a request ({error.status_code}): {reason}{advice}"


class _NonsenseError(Exception):
    """An answer that does not match the request."""


_NONSENSE = (_NonsenseError, pydantic.ValidationError, json.JSONDecodeError, UnicodeDecodeError)


def _reason(error: Exception) -> str:
    if isinstance(error, _NONSENSE[1:]):
        return "an answer that is not a completion"
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
    return f"{type(cause or error).__name__}: {' '.join(str(cause or error).split())[:200]}"


def _wait_s(tried: int, headers: Any) -> float:
    """Seconds before the next try: at least the server's `retry-after`, else exponential backoff with jitter."""
    try:
        asked_s = float(headers.get("retry-after", ""))
    except ValueError:
        asked_s = 0.0
    return min(_LONGEST_WAIT_S, max(asked_s, _FIRST_WAIT_S * 2**tried * (0.75 + random.random() / 2)))


class Pace:
    """Rate limiter that spaces requests evenly; None is no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self._every_s = 60.0 / per_minute if per_minute else 0.0
        self._next_s = 0.0

    async def wait(self) -> None:
        now_s = time.monotonic()
        begin_s = max(now_s, self._next_s)
        self._next_s = begin_s + self._every_s
        await asyncio.sleep(begin_s - now_s)
