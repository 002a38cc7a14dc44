"""A Sampler over the engine of a Ray Serve application (`services.generator.Engine`), by its deployment's handle.

The engine is shared with the OpenAI routes: there is one in memory. It must be started with room for one token beyond the
longest row, and with `logprobs_mode=processed_logprobs`, so that log-probs are those of what was really sampled from.
"""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import ray.exceptions
from ray.serve.exceptions import RayServeException
from ray.serve.llm.openai_api_models import CompletionRequest

from offsft.errors import EngineError
from offsft.protocols import SamplingParams
from offsft.records import Completion


@dataclass(frozen=True, slots=True)
class Whole:
    """An engine's answer to a request of an OpenAI route, as the one message that crosses processes for it."""

    status: int
    """As HTTP has it."""
    text: str
    """The answer as OpenAI's JSON where `status` is 200, else one line that says what was wrong."""
    kind: str
    """What kind of error it is; empty for none."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


async def whole_answer(handle: Any, route: str, request: Any) -> Whole:
    """The answer of an engine to a request without a stream; `route` is `chat` or `completions`.

    Cancelled, it has the engine abort the request.

    Raises:
        EngineError: the engine died or does not answer.
    """
    answer = handle.whole.remote(route, request)
    try:
        return await answer
    except asyncio.CancelledError:
        answer.cancel()
        raise
    except (ray.exceptions.RayError, RayServeException) as error:
        raise engine_error(error) from error


class HandleSampler:
    """Token ids in, token ids and log-probs out, of the model that a deployment of ray.serve.llm calls `model`."""

    def __init__(self, handle: Any, model: str, stop_token_ids: tuple[int, ...]) -> None:
        self._handle = handle
        self._model = model
        self._stop_token_ids = list(stop_token_ids)

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        answer = await self._ask(
            prompt=prompt_ids,
            n=n,
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            logprobs=0,
            stop_token_ids=self._stop_token_ids,
        )
        return [
            Completion(
                text=choice["text"],
                token_ids=choice["token_ids"],
                logprobs=choice["logprobs"]["token_logprobs"],
                finish_reason=choice["finish_reason"] or "aborted",
            )
            for choice in sorted(answer["choices"], key=lambda choice: choice["index"])
        ]

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        ids = [*prompt_ids, *response_ids]
        answer = await self._ask(prompt=ids, max_tokens=1, temperature=0.0, prompt_logprobs=0)
        positions = answer["choices"][0]["prompt_logprobs"][len(prompt_ids) :]
        return [position[str(token)]["logprob"] for position, token in zip(positions, response_ids, strict=True)]

    async def _ask(self, **fields: Any) -> dict[str, Any]:
        # What a request leaves out would be taken from the model's generation config.
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        # An id of its own: by default it is that of the HTTP request, which may ask several things at once.
        request = CompletionRequest(model=self._model, request_id=uuid.uuid4().hex, **neutral, **fields)
        answer = await whole_answer(self._handle, "completions", request)
        if answer.status != 200:
            raise EngineError(f"the engine refused a request: {answer.text}")
        return json.loads(answer.text)


def engine_error(error: Exception) -> EngineError:
    """What Ray says of a call that failed, in a line; engines are restarted by Serve."""
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return EngineError(f"the engine did not answer: {type(cause).__name__}")
