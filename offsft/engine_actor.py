"""What every actor that holds an engine does: start it, take each problem through it, and leave when it dies."""

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import ray
import ray.exceptions

from offsft import metrics
from offsft.config import Engine, Prompt, Recipe, Verify
from offsft.console import output_to_file, put_output
from offsft.errors import EngineError
from offsft.foreman import Leave
from offsft.metered import MeteredVerifier
from offsft.model_files import fetched
from offsft.problems import Reason
from offsft.prompts import Prompts, load_prompts
from offsft.protocols import Sampler
from offsft.quarantine import write_poison
from offsft.sampling.vllm import VllmSampler, VllmSettings
from offsft.sampling.watched import WatchedSampler
from offsft.storage import StoragePath, at, is_folder
from offsft.verify import open_verifier

SamplerFactory = Callable[[Prompts], Sampler]
Done = tuple[dict[str, Any], str, int]
"""A row that comes out, its kind for the display, and the number of tokens sampled for it."""
Work = Callable[[dict[str, Any]], Coroutine[Any, Any, Done]]

_TELL_S = 1.0
"""Finished problems are told to the foreman so often, and with each batch: a call for each would be most of its work."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineSpec:
    """All that an engine actor needs; picklable.

    `run` is the run's name, `model` a folder or name, `policy` what rows call it; `raw_distribution` is False where the distribution that
    is sampled from is not the policy itself. `sampler_factory` replaces vLLM in tests and simulations.
    """

    run: str
    model: str
    policy: str
    revision: str | None
    dtype: str
    pickled_weights: bool
    context_tokens: int
    seed: int
    raw_distribution: bool
    engine: Engine
    verify: Verify
    prompt: Prompt
    logs: str
    quarantine: str
    foreman: Any
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
            tensor_parallel=self.engine.tensor_parallel,
            seed=self.seed,
            pickled_weights=self.pickled_weights,
            stop_token_ids=stop_token_ids,
        )


class EngineActor:
    """Base of the `map_batches` classes: `self.sampler`, `self.verifier` and `self.prompts` are ready to use."""

    stage: ClassVar[str]
    """The stage's name in metrics."""

    def __init__(self, spec: EngineSpec) -> None:
        spec = replace(spec, model=fetched(spec.model))
        self.spec = spec
        spec.foreman.engine_placed.remote()
        output_to_file(at(spec.logs) / f"engine-{os.getpid()}.log")
        self.prompts = load_prompts(spec.model, spec.revision, spec.prompt)
        self.verifier = MeteredVerifier(open_verifier(spec.verify), spec.run)
        self._labels = {"run": spec.run, "stage": self.stage}
        self.sampler = WatchedSampler(self._start(), spec.engine.stall_s)
        self._in_work: set[str] = set()
        self._alone: str | None = None
        self._ended: Counter[str] = Counter()
        self._ended_tokens = 0
        self._told_s = time.monotonic()
        self._one_suspect: asyncio.Lock | None = None
        self._stop: asyncio.Task[None] | None = None
        spec.foreman.engine_started.remote()

    def __del__(self) -> None:
        # Ray Data drops the object when the pool is torn down in good order. An engine core whose parent is gone
        # first dies noisily.
        for part in ("sampler", "verifier"):
            close = getattr(getattr(self, part, None), "close", None)
            if close is not None:
                close()
        put_output()

    async def each(self, batch: pa.Table, work: Work) -> list[dict[str, Any]]:
        """The batch's rows through `work`, in order, without those that are poison or left for the next job.

        `work` returns the row that comes out, its kind and the number of tokens sampled.
        """
        if self._stop is None:
            self._one_suspect = asyncio.Lock()
            self._stop = asyncio.ensure_future(self._wait_for_stop())
        rows = batch.to_pylist()
        leaves = await self._leaves([row["id"] for row in rows])
        tasks = [asyncio.ensure_future(self._one(row, leave, work)) for row, leave in zip(rows, leaves, strict=True)]
        everything = asyncio.gather(*tasks)
        await asyncio.wait({everything, self._stop}, return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            await asyncio.wait({everything}, timeout=self.spec.engine.grace_s)
        if not everything.done():
            everything.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        else:
            results = everything.result()
        self._tell_ended()
        return [row for row in results if isinstance(row, dict)]

    async def _one(self, row: dict[str, Any], leave: Leave, work: Work) -> dict[str, Any] | None:
        problem = row["id"]
        match leave:
            case Leave.STOP:
                return None
            case Leave.POISON:
                self._quarantine(row)
                return None
            case Leave.GO:
                return await self._survived(problem, work(row))
            case Leave.ALONE:
                assert self._one_suspect is not None
                async with self._one_suspect:
                    if await self._leaves([problem]) == [Leave.STOP]:
                        return None
                    self._alone = problem
                    try:
                        survived = await self._survived(problem, work(row))
                        self.spec.foreman.acquit.remote(problem)
                        return survived
                    finally:
                        self._alone = None

    async def _leaves(self, problems: list[str]) -> list[Leave]:
        return await self.spec.foreman.begin.remote(problems)

    async def _survived(self, problem: str, work: Coroutine[Any, Any, Done]) -> dict[str, Any]:
        """Await `work`; if it failed because the engine is dead, end the process, so that Ray starts another actor.

        Ray retries a failed task on the actor that it failed on, and a dead engine does not come back.
        """
        self._in_work.add(problem)
        metrics.PROBLEMS_IN_WORK.set(len(self._in_work), **self._labels)
        try:
            row, kind, tokens = await work
        except Exception:  # whatever it was: only a dead engine is acted upon, the rest is raised again
            if not self.sampler.alive:
                logger.exception("the engine is dead; this actor leaves")
                self._tell_ended()
                ray.get(self.spec.foreman.engine_died.remote(sorted(self._in_work), self._alone))
                put_output()
                os._exit(1)
            raise
        finally:
            self._in_work.discard(problem)
            metrics.PROBLEMS_IN_WORK.set(len(self._in_work), **self._labels)
        self._ended[kind] += 1
        self._ended_tokens += tokens
        if time.monotonic() - self._told_s > _TELL_S:
            self._tell_ended()
        metrics.PROBLEMS.add(outcome=kind, **self._labels)
        metrics.SAMPLED_TOKENS.add(tokens, **self._labels)
        return row

    def _tell_ended(self) -> None:
        if self._ended:
            self.spec.foreman.ended.remote(dict(self._ended), self._ended_tokens)
        self._ended, self._ended_tokens, self._told_s = Counter(), 0, time.monotonic()

    async def _wait_for_stop(self) -> None:
        try:
            await self.spec.foreman.stopped.remote()
        except ray.exceptions.RayError:  # the job is gone, and this actor with it before long
            await asyncio.Event().wait()

    def _quarantine(self, row: dict[str, Any]) -> None:
        """Write the problem's one line there, by its id, so that a second writing changes nothing."""
        logger.error("problem %s is poison: it goes to quarantine", row["id"])
        metrics.PROBLEMS.add(outcome=str(Reason.POISON), **self._labels)
        detail = (
            f"the engine died {self.spec.engine.poison_tries} times while this problem ran alone (engine.poison_tries);"
            " the engine's own reason is in logs/ of the run's folder"
        )
        line = {
            "file": row.get("file"),
            "line": row.get("line"),
            "reason": str(Reason.POISON),
            "detail": detail,
            "raw": json.dumps({key: row[key] for key in ("problem", "solution", "answer") if key in row}),
        }
        write_poison(at(self.spec.quarantine), row["id"], line)

    def _start(self) -> Sampler:
        for tries_left in reversed(range(self.spec.engine.start_tries)):
            try:
                return self._new_sampler()
            except EngineError as error:
                logger.exception("the engine did not start; %d tries left", tries_left)
                put_output()
                if not tries_left:
                    # The driver shows this; what Ray would show is its own traceback around it.
                    ray.get(self.spec.foreman.engine_failed.remote(str(error)))
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
    logs: StoragePath,
    quarantine: StoragePath,
    foreman: Any,
    sampler_factory: SamplerFactory | None,
) -> EngineSpec:
    """The spec of a recipe's engines for one model; a local folder has no revision."""
    return EngineSpec(
        run=Path(recipe.run).name,
        model=model,
        policy=policy,
        revision=None if is_folder(model) else recipe.model.revision,
        dtype=recipe.model.dtype,
        pickled_weights=recipe.model.pickled_weights,
        context_tokens=recipe.model.context_tokens,
        seed=recipe.seed,
        raw_distribution=raw_distribution,
        engine=recipe.engine,
        verify=recipe.verify,
        prompt=recipe.prompt,
        logs=str(logs),
        quarantine=str(quarantine),
        foreman=foreman,
        sampler_factory=sampler_factory,
    )
