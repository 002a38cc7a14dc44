"""A Sampler over the engine of a Ray Serve application (`services.generator.EngineServer`), by its deployment's handle.

The engine is shared with the OpenAI routes: only one is in memory. It must be started with room for one token beyond
the longest row, and with `logprobs_mode=processed_logprobs`, so that log-probs are those of the distribution actually
sampled from.
"""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import ray.exceptions
from ray.serve.exceptions import RayServeException
from ray.serve.llm.openai_api_models import CompletionRequest

from offsft.errors import EngineError, OffsftError
from offsft.protocols import SamplingParams
from offsft.records import Completion


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An engine's complete answer to an OpenAI request, sent between processes as one message."""

    status: int
    """HTTP status code."""
    text: str
    """The answer as OpenAI's JSON if `status` is 200, else a one-line error message."""
    kind: str
    """The kind of error; empty if none."""
    param: str | None = None
    """The field of the request that is to blame for an error, where one is."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


async def whole_answer(handle: Any, route: str, request: Any, *hints: Any) -> WholeAnswer:
    """Return an engine's answer to a non-streaming request; `route` is the method of its server.

    `hints` are for the router between replicas.

    Cancelling it makes the engine abort the request.

    Raises:
        EngineError: the engine died or does not answer.
        RayTaskError: the engine's replica failed in a way that it should not.
    """
    answer = handle.whole.remote(route, request, *hints)
    try:
        return await answer
    except asyncio.CancelledError:
        answer.cancel()
        raise
    except (ray.exceptions.RayError, RayServeException) as error:
        raise engine_error(error) from error


class ServeSampler:
    """Samples and scores token ids with the model that a deployment of ray.serve.llm calls `model`."""

    def __init__(
        self, handle: Any, model: str, stop_token_ids: tuple[int, ...], extra: dict[str, Any] | None = None
    ) -> None:
        """`extra` are fields of each request beside those of its own, such as an adapter's folder."""
        self._extra = extra or {}
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
        # Parameters missing from a request would be taken from the model's generation config.
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        # A separate id: the default is that of the HTTP request, which may make several of these requests at once.
        request = CompletionRequest(model=self._model, request_id=uuid.uuid4().hex, **neutral, **self._extra, **fields)
        answer = await whole_answer(self._handle, "completions", request)
        if answer.status == 503:
            raise EngineError(f"the engine did not answer: {answer.kind}")
        if answer.status != 200:
            raise OffsftError(f"the engine refused a request of ours: {answer.text}")
        return json.loads(answer.text)


def engine_error(error: Exception) -> Exception:
    """The error to raise for a failed Ray call: an EngineError unless the replica lives and its code raised something.

    An engine's death comes as an answer of status 503 while its replica lives, then as one of Ray's errors about actors
    and deployments. Serve restarts both.
    """
    if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(error.cause, _AWAY):
        return error
    return EngineError(f"the engine did not answer: {type(error).__name__}")


_AWAY = (ray.exceptions.RayActorError, RayServeException, ray.exceptions.TaskCancelledError)
"""What the code of a replica may raise because another process is away."""
