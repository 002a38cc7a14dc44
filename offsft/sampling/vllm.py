"""A vLLM engine behind the Sampler protocol. The only file that imports vllm, and it does not import ray.

The engine lives on a thread and event loop of its own, so that a caller whose loop stalls (a Ray actor under
back-pressure, for example) does not stall the device.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from offsft.errors import EngineError
from offsft.protocols import SamplingParams
from offsft.records import Completion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """What an engine is built from; see `offsft.config.Engine` and `Model` for the units."""

    model: str
    revision: str | None
    dtype: str
    context_tokens: int
    max_sequences: int
    kv_cache_gib: float
    gpu_memory_share: float
    gpus: float
    seed: int
    pickled_weights: bool = False
    tensor_parallel: int = 1
    stop_token_ids: tuple[int, ...] = ()
    """Ends of turn, beside those that the model's own generation config names."""


def prepare_environment(settings: VllmSettings) -> None:
    """Set what vLLM reads from the environment at import. Must run before the first import of vllm in a process."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if settings.gpus == 0:
        # By default vLLM leaves a core idle, which on two cores halves the speed.
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(settings.kv_cache_gib)))
        # Ray sets this to the CPUs that the actor reserves; vLLM binds its own threads to cores.
        os.environ.pop("OMP_NUM_THREADS", None)


class VllmSampler:
    """One engine holding one policy. `sample` and `score` may be awaited from any event loop, hundreds at once."""

    def __init__(self, settings: VllmSettings, *, raw_distribution: bool = True) -> None:
        """Start the engine (20-40 s).

        `raw_distribution=False` records log-probs after temperature and top-p were applied: those of the
        distribution that was really sampled from, where it is not the policy itself.

        Raises:
            EngineError: with vLLM's own reason, when the engine does not start.
        """
        prepare_environment(settings)
        self._request_ids = itertools.count()
        self._stop_token_ids = settings.stop_token_ids
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        try:
            self._engine = asyncio.run_coroutine_threadsafe(_start(settings, raw_distribution), self._loop).result()
        except Exception as error:  # any failure of a third-party engine's start ends in one clear error
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise EngineError(
                f"vLLM could not start an engine for model {settings.model!r}: {type(error).__name__}: {error}"
            ) from error

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        return await self._on_engine_loop(self._sample(prompt_ids, n, params))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        return await self._on_engine_loop(self._score(prompt_ids, response_ids))

    @property
    def alive(self) -> bool:
        """False once the engine process has died; a dead engine does not come back."""
        return not self._engine.errored

    def close(self) -> None:
        """Stop the engine process. Do so before the process that holds it ends, or the engine core dies noisily."""

        async def stop() -> None:
            self._engine.shutdown()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(timeout=30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    async def _on_engine_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _generate(self, prompt_ids: list[int], params: Any) -> Any:
        request_id = str(next(self._request_ids))
        outputs: AsyncGenerator[Any, None] = self._engine.generate(
            {"prompt_token_ids": prompt_ids}, params, request_id=request_id
        )
        final = None
        async for output in outputs:
            final = output
        assert final is not None, request_id
        return final

    async def _sample(self, prompt_ids: list[int], n: int, params: SamplingParams) -> list[Completion]:
        import vllm
        from vllm.sampling_params import RequestOutputKind

        # No per-request seed: on CPUs it kills the engine when a prefill is split. The engine is seeded instead.
        request = vllm.SamplingParams(
            n=n,
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            logprobs=0,
            stop_token_ids=list(self._stop_token_ids),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._generate(prompt_ids, request)
        return [_completion(sequence) for sequence in output.outputs]

    async def _score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        import vllm

        ids = [*prompt_ids, *response_ids]
        request = vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        output = await self._generate(ids, request)
        return [
            position[token].logprob
            for position, token in zip(output.prompt_logprobs[len(prompt_ids) :], response_ids, strict=True)
        ]


async def _start(settings: VllmSettings, raw_distribution: bool) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(settings, raw_distribution)))


def engine_arguments(settings: VllmSettings, raw_distribution: bool) -> dict[str, Any]:
    """What vLLM is told. With tensor parallelism its workers take the bundles of the placement group they are in."""
    args: dict[str, Any] = {
        "model": settings.model,
        "revision": settings.revision,
        "dtype": settings.dtype,
        # One token more than the longest row, since scoring a full row samples one token after it.
        "max_model_len": settings.context_tokens + 1,
        "max_num_seqs": settings.max_sequences,
        "seed": settings.seed,
        "load_format": "auto" if settings.pickled_weights else "safetensors",
        "logprobs_mode": "raw_logprobs" if raw_distribution else "processed_logprobs",
        "disable_log_stats": True,
    }
    if settings.gpus:
        args["gpu_memory_utilization"] = settings.gpu_memory_share
    else:
        # Compilation gains 15 % on a CPU and costs over a minute at each start.
        args["enforce_eager"] = True
    if settings.tensor_parallel > 1:
        args |= {"tensor_parallel_size": settings.tensor_parallel, "distributed_executor_backend": "ray"}
    return args


def _completion(sequence: Any) -> Completion:
    token_ids = list(sequence.token_ids)
    logprobs = [position[token].logprob for position, token in zip(sequence.logprobs, token_ids, strict=True)]
    return Completion(
        text=sequence.text, token_ids=token_ids, logprobs=logprobs, finish_reason=sequence.finish_reason or "aborted"
    )
