"""A vLLM engine behind the Sampler protocol, and the vLLM arguments used both here and under Ray Serve.

This is the only file that imports vllm, and it does not import ray. `environment` and `engine_arguments` serve both
`VllmSampler` and `services.generator`, so a recipe means the same in a batch job and over HTTP.

The engine runs on a dedicated thread and event loop, so that a caller whose loop stalls (a Ray actor under
back-pressure, for example) does not stall the device.
"""

import asyncio
import dataclasses
import difflib
import functools
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from offsft.config import EngineConfig
from offsft.errors import ConfigError, EngineError, OffsftError
from offsft.inference.engines.base import EngineSetup
from offsft.models import longest_sequence
from offsft.prompts import Prompts
from offsft.protocols import SamplingParams
from offsft.records import Completion
from offsft.runtime.compiled_code import prepare_compiling

T = TypeVar("T")


_OWNED = {
    "model": "model.path",
    "tokenizer": "model.path",
    "revision": "model.revision",
    "tokenizer_revision": "model.revision",
    "dtype": "model.dtype",
    "load_format": "model.pickled_weights",
    "max_model_len": "model.context_tokens",
    "seed": "seed",
    "max_num_seqs": "engine.max_sequences",
    "gpu_memory_utilization": "engine.gpu_memory_share",
    "tensor_parallel_size": "engine.tensor_parallel",
}
"""The recipe's setting that replaces each vLLM argument."""
_IN_CORE = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""The executor without processes of its own; by its short name, `uni`, vLLM takes another one on CPUs."""
_LIFELINE = "offsft.inference.engines.lifeline.Lifeline"
_ONE_KIND = "an engine spreads over engine.tensor_parallel GPUs, in no other way"
_REFUSED = {
    "logprobs_mode": "it is set so that log-probs are those of the distribution really sampled from",
    "distributed_executor_backend": "it follows from engine.tensor_parallel",
    "served_model_name": "clients call a model by the name in the Serve config",
    "hf_token": "a recipe is kept with the run and is not the place for a secret; set HF_TOKEN in the environment",
    "pipeline_parallel_size": _ONE_KIND,
    "data_parallel_size": _ONE_KIND,
    "prefill_context_parallel_size": _ONE_KIND,
    "nnodes": _ONE_KIND,
}
"""Why each of these arguments cannot be set."""
_LIST_ARGUMENTS = """
import dataclasses, json
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import BaseFrontendArgs
names = {field.name for each in (AsyncEngineArgs, BaseFrontendArgs) for field in dataclasses.fields(each)}
print(json.dumps(sorted(name for name in names if not name.startswith("_"))))
"""


def environment(engine: EngineConfig) -> dict[str, str]:
    """Environment variables that vLLM reads when it is imported; variables that the user has set keep their value."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    if not engine.gpus:
        # By default vLLM leaves one core idle, which halves the speed on two cores.
        defaults["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
    variables = {name: os.environ.get(name, value) for name, value in defaults.items()}
    if not engine.gpus:
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(engine.kv_cache_gib)))
    return variables


def use_all_cores() -> None:
    """Unset the thread count that Ray derives from an actor's CPUs: vLLM binds its own threads to cores."""
    os.environ.pop("OMP_NUM_THREADS", None)


def engine_arguments(setup: EngineSetup, *, fetch: bool = True) -> dict[str, Any]:
    """The engine arguments for vLLM, except the model's name; `fetch` as for `offsft.models.position_limit`.

    With tensor parallelism the workers take the bundles of the placement group that the engine is in.

    Raises:
        ModelError: `context_tokens` exceeds the model's own position limit.
    """
    engine = setup.engine
    arguments: dict[str, Any] = {
        "dtype": setup.dtype,
        "max_model_len": longest_sequence(setup.model, setup.revision, setup.context_tokens, fetch=fetch),
        "max_num_seqs": engine.max_sequences,
        "seed": setup.seed,
        "load_format": "auto" if setup.pickled_weights else "safetensors",
        "logprobs_mode": "raw_logprobs" if setup.raw_distribution else "processed_logprobs",
        "worker_extension_cls": _LIFELINE,
    }
    if setup.revision is not None:
        arguments["revision"] = setup.revision
    if engine.gpus:
        arguments["gpu_memory_utilization"] = engine.gpu_memory_share
    else:
        # Compilation gains 15 % on a CPU and costs over a minute per start.
        arguments["enforce_eager"] = True
    if engine.tensor_parallel > 1:
        arguments |= {"tensor_parallel_size": engine.tensor_parallel, "distributed_executor_backend": "ray"}
    return arguments | engine.args


def check(engine: EngineConfig) -> None:
    """Refuse `engine.args` that vLLM does not know or that the recipe sets elsewhere.

    If vLLM is not installed (a driver outside a cluster that has it), unknown names are left to the engine.

    Raises:
        ConfigError: naming the argument, and the setting or argument to use.
    """
    for name in engine.args:
        if name in _OWNED:
            raise ConfigError(f"engine.args.{name}: the recipe says this as {_OWNED[name]}; set that")
        if name in _REFUSED:
            raise ConfigError(f"engine.args.{name} cannot be set: {_REFUSED[name]}")
    if not engine.args or importlib.util.find_spec("vllm") is None:
        return
    known = argument_names()
    for name in engine.args:
        if name not in known:
            close = difflib.get_close_matches(name.strip("-").replace("-", "_").lower(), known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]}?" if close else "`vllm serve --help=all` lists them"
            raise ConfigError(f"engine.args.{name}: vLLM has no such argument; {hint}")


@functools.cache
def argument_names() -> frozenset[str]:
    """The names of vLLM's engine arguments and of its OpenAI server's (tool parsers and the like).

    Listed by another process: importing vLLM takes seconds and a gigabyte, and changes its process's environment.

    Raises:
        ConfigError: vLLM cannot be imported.
    """
    # vLLM may log to stdout as well, so only the last line is read.
    asked = subprocess.run([sys.executable, "-c", _LIST_ARGUMENTS], capture_output=True, text=True)
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"engine.args cannot be checked, since vLLM cannot be imported: {reason}")
    return frozenset(json.loads(asked.stdout.strip().splitlines()[-1]))


def open_engine(setup: EngineSetup, prompts: Prompts) -> "VllmSampler":
    return VllmSampler(setup, prompts.turn.stop_ids)


class VllmSampler:
    """One engine holding one policy; `sample` and `score` may be awaited from any event loop, hundreds at once."""

    def __init__(self, setup: EngineSetup, stop_token_ids: tuple[int, ...]) -> None:
        """Start the engine (20-40 s); `stop_token_ids` end a turn, as do those in the model's generation config.

        Raises:
            EngineError: the engine does not start; with vLLM's own reason.
        """
        os.environ.update(environment(setup.engine))
        if not setup.engine.gpus:
            use_all_cores()
        prepare_compiling(gpus=setup.engine.gpus > 0)
        self._request_ids = itertools.count()
        self._stop_token_ids = stop_token_ids
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        try:
            self._engine = asyncio.run_coroutine_threadsafe(_start(setup), self._loop).result()
        except Exception as error:  # any failure of a third-party engine's start becomes one clear error
            self._loop.call_soon_threadsafe(self._loop.stop)
            reason = str(error) if isinstance(error, OffsftError) else f"{type(error).__name__}: {error}"
            raise EngineError(f"vLLM could not start an engine for model {setup.model!r}: {reason}") from error

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        return await self._on_engine_loop(self._sample(prompt_ids, n, params))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        return await self._on_engine_loop(self._score(prompt_ids, response_ids))

    @property
    def alive(self) -> bool:
        """Whether the engine process is running; a dead engine does not come back."""
        return not self._engine.errored

    def close(self) -> None:
        """Stop the engine process; call it before the owning process ends, or the engine core dies noisily."""

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
        from vllm.sampling_params import RequestOutputKind

        def request(*, cached: bool) -> Any:
            return vllm.SamplingParams(
                max_tokens=1,
                temperature=0.0,
                prompt_logprobs=0,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_reading_prefix_cache=not cached,
            )

        # vLLM gives no log-probs of what it takes from its cache, and so reads none for such a request. The prompt's are
        # not asked for here: it may come from the cache, and is computed again only if the response was in it too.
        ids = [*prompt_ids, *response_ids]
        output = await self._generate(ids, request(cached=True))
        if (output.num_cached_tokens or 0) >= len(prompt_ids):
            output = await self._generate(ids, request(cached=False))
        return [
            position[token].logprob
            for position, token in zip(output.prompt_logprobs[-len(response_ids) :], response_ids, strict=True)
        ]


async def _start(setup: EngineSetup) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    # `engine.args` may also hold arguments of vLLM's HTTP server, such as its tool parser, for a recipe that is served.
    arguments = {name: value for name, value in engine_arguments(setup).items() if name in known}
    arguments = {"disable_log_stats": True, **arguments}
    if setup.engine.gpus or setup.engine.tensor_parallel > 1:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(model=setup.model, **arguments))
    return _start_on_cpu(AsyncEngineArgs(model=setup.model, **arguments, distributed_executor_backend=_IN_CORE))


def _start_on_cpu(arguments: Any) -> Any:
    """Start an engine whose core runs the model itself, as on one GPU.

    By vLLM's default a CPU's engine has another process for the model, since OpenMP's threads are bound to cores by
    variables that only a new process reads. The core is a new process, too: it gets them. That saves the import of vLLM
    by a third process, its memory, and two processes that spin while one waits for the other.
    """
    from vllm.utils.ompmultiprocessing import OMPProcessManager
    from vllm.v1.engine.async_llm import AsyncLLM

    config = arguments.create_engine_config()
    with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
        return AsyncLLM.from_vllm_config(
            config,
            enable_log_requests=arguments.enable_log_requests,
            disable_log_stats=arguments.disable_log_stats,
        )


def _completion(sequence: Any) -> Completion:
    token_ids = list(sequence.token_ids)
    logprobs = [position[token].logprob for position, token in zip(sequence.logprobs, token_ids, strict=True)]
    return Completion(
        text=sequence.text, token_ids=token_ids, logprobs=logprobs, finish_reason=sequence.finish_reason or "aborted"
    )
