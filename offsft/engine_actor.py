"""What every actor that holds an engine does: start it, verify beside it, report progress, and leave when it dies."""

import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle

from offsft.config import Engine, Prompt, Recipe, Verify
from offsft.console import output_to_file
from offsft.errors import EngineError
from offsft.prompts import Prompts, load_prompts
from offsft.protocols import Sampler
from offsft.sampling.vllm import VllmSampler, VllmSettings
from offsft.verify import open_verifier

T = TypeVar("T")
SamplerFactory = Callable[[Prompts], Sampler]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineSpec:
    """All that an engine actor needs; picklable.

    `model` is a folder or name, `policy` what rows call it; `raw_distribution` is False where the distribution that
    is sampled from is not the policy itself. `sampler_factory` replaces vLLM in tests and simulations.
    """

    model: str
    policy: str
    revision: str | None
    dtype: str
    context_tokens: int
    seed: int
    raw_distribution: bool
    engine: Engine
    verify: Verify
    prompt: Prompt
    logs: str
    progress: ActorHandle
    sampler_factory: SamplerFactory | None = None

    def vllm_settings(self, stop_token_ids: tuple[int, ...]) -> VllmSettings:
        return VllmSettings(
            model=self.model,
            revision=self.revision,
            dtype=self.dtype,
            context_tokens=self.context_tokens,
            max_sequences=self.engine.max_sequences,
            kv_cache_gib=self.engine.kv_cache_gib,
            gpu_memory_share=self.engine.gpu_memory_share,
            gpus=self.engine.gpus,
            seed=self.seed,
            stop_token_ids=stop_token_ids,
        )


class EngineActor:
    """Base of the `map_batches` classes: `self.sampler`, `self.verifier` and `self.prompts` are ready to use."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        output_to_file(Path(spec.logs) / f"engine-{os.getpid()}.log")
        self.prompts = load_prompts(spec.model, spec.revision, spec.prompt)
        self.verifier = open_verifier(spec.verify)
        self.sampler = self._start()
        spec.progress.started.remote()

    def __del__(self) -> None:
        # Ray Data drops the object when the pool is torn down in good order. An engine core whose parent is gone
        # first dies noisily.
        for part in ("sampler", "verifier"):
            close = getattr(getattr(self, part, None), "close", None)
            if close is not None:
                close()

    def count(self, kind: str, tokens: int) -> None:
        """Tell the driver's display that one problem is done."""
        self.spec.progress.add.remote(str(kind), tokens)

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`; if it failed because the engine is dead, end the process, so that Ray starts another actor.

        Ray retries a failed task on the actor that it failed on, and a dead engine does not come back.
        """
        try:
            return await work
        except Exception:  # whatever it was: only a dead engine is acted upon, the rest is raised again
            if not getattr(self.sampler, "alive", True):
                logger.exception("the engine is dead; this actor leaves")
                os._exit(1)
            raise

    def _start(self) -> Sampler:
        for tries_left in reversed(range(self.spec.engine.start_tries)):
            try:
                return self._new_sampler()
            except EngineError as error:
                logger.exception("the engine did not start; %d tries left", tries_left)
                if not tries_left:
                    # The driver shows this; what Ray would show is its own traceback around it.
                    ray.get(self.spec.progress.fail.remote(str(error)))
                    raise
                time.sleep(1)
        raise AssertionError("engine.start_tries is at least 1")

    def _new_sampler(self) -> Sampler:
        if self.spec.sampler_factory is not None:
            return self.spec.sampler_factory(self.prompts)
        settings = self.spec.vllm_settings((self.prompts.end_of_turn,))
        return VllmSampler(settings, raw_distribution=self.spec.raw_distribution)


def engine_spec(
    recipe: Recipe,
    *,
    model: str,
    policy: str,
    raw_distribution: bool,
    logs: Path,
    progress: ActorHandle,
    sampler_factory: SamplerFactory | None,
) -> EngineSpec:
    """The spec of a recipe's engines for one model; a local folder has no revision."""
    return EngineSpec(
        model=model,
        policy=policy,
        revision=None if Path(model).exists() else recipe.model.revision,
        dtype=recipe.model.dtype,
        context_tokens=recipe.model.context_tokens,
        seed=recipe.seed,
        raw_distribution=raw_distribution,
        engine=recipe.engine,
        verify=recipe.verify,
        prompt=recipe.prompt,
        logs=str(logs),
        progress=progress,
        sampler_factory=sampler_factory,
    )
