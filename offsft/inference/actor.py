"""The Ray Data actor around an engine: it starts the engine, runs each problem through it, and exits when it dies.

Who owns whom: Ray Data owns the actors, one process each. An actor owns one engine (inside a `WatchdogSampler`), its
verifier processes, and the prompts. The stage's coordinator (`offsft.inference.coordinator`), one for all actors, owns
the state of each problem. The stages of a run subclass `EngineActor` and define the work per row.

Ray Data calls an actor with several batches at once, all on one event loop. Each problem is a separate task; hundreds
are in progress, so that the engine always has enough to decode together. The order of events:

1. The actor reports that it has its resources, starts the engine, and reports that it is ready. The display shows the
   two states separately.
2. A batch asks the coordinator for each problem's admission, and begins the admitted ones.
3. A batch ends when all of its problems have. Once the job is stopping, it ends after the grace period: unfinished
   problems are cancelled and have no row, and the next job does them.
4. When an engine dies, the actor reports the problems in progress, waits until the report has arrived, and exits its
   process. Ray retries a failed task on the same living actor, and a dead engine does not come back; a new process gets
   a new engine.

5. However the job ends, a failure or a signal included, the actor leaves with it (`offsft.inference.leaving`).

An engine is given `engine.start_tries` attempts to start; then its reason goes to the driver, which shows it. So is one
that starts and dies before it answers anything.
"""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
import ray
import ray.exceptions

from offsft.data.quarantine import poison_line, write_poison
from offsft.data.rows import Reason
from offsft.errors import EngineError
from offsft.inference.coordinator import Admission
from offsft.inference.engine_start import start_engine
from offsft.inference.engines import open_engine
from offsft.inference.engines.base import Usage
from offsft.inference.leaving import leave_with_job
from offsft.inference.spec import EngineSpec
from offsft.inference.thought_budget import with_thought_budget
from offsft.inference.verifier import VerifierWithMetrics
from offsft.inference.watchdog import WatchdogSampler
from offsft.models import download_model
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Problem
from offsft.runtime import metrics
from offsft.runtime.compiled_code import is_compiled
from offsft.runtime.console import output_to_file, put_output
from offsft.storage.paths import at, is_url
from offsft.verify import open_verifier

Done = tuple[dict[str, Any], str, int]
"""The output row, its kind for display and metrics, and the number of tokens sampled for it."""
Work = Callable[[dict[str, Any]], Coroutine[Any, Any, Done]]
"""A stage's work on one row."""

_REPORT_S = 1.0
"""Interval between reports of finished problems, which are also sent with each batch.

A call per problem would be most of the coordinator's work.
"""

_WAITS_S = 5.0
"""Interval between reports of what the engine waits for."""
_PROOF = Problem("", "What is 1 + 0?", "", "")
"""The problem that an engine is asked first, if the one before it died without an answer."""

logger = logging.getLogger(__name__)


class EngineActor:
    """Base of the `map_batches` classes: `self.policy`, `self.verifier` and `self.prompts` are ready to use.

    `self.sampler` is the engine below the policy, which may bound its thoughts.
    """

    stage: ClassVar[str]
    """The stage's name in metrics."""

    def __init__(self, spec: EngineSpec) -> None:
        spec.coordinator.engine_placed.remote(
            "fetching the model" if is_url(spec.setup.model) else "starting the engine"
        )
        setup = replace(spec.setup, model=download_model(spec.setup.model))
        spec = replace(spec, setup=setup)
        self.spec = spec
        leave_with_job(spec.coordinator, self)
        compiles = (
            setup.engine.kind == "vllm" and not spec.sampler_factory and not is_compiled(gpus=setup.engine.gpus > 0)
        )
        output_to_file(at(spec.logs) / f"engine-{os.getpid()}.log")
        self.prompts = spec.prompts
        self.verifier = VerifierWithMetrics(open_verifier(spec.verify), spec.run)
        self._labels = {"run": spec.run, "stage": self.stage}
        note = " and compiling, once on this machine" if compiles and setup.engine.gpus else ""
        spec.coordinator.engine_begins.remote(f"starting the engine{note}")
        self.sampler = WatchdogSampler(self._start_engine(), setup.engine.stall_s)
        self.policy = with_thought_budget(self.sampler, self.prompts, spec.thinking_tokens)
        self._in_progress: set[str] = set()
        self._suspect: str | None = None
        """The suspect that is running."""
        self._finished: Counter[str] = Counter()
        self._finished_tokens = 0
        self._reported_usage = Usage()
        self._reported_s = time.monotonic()
        # Both belong to the event loop, which is not running yet.
        self._suspects_turn: asyncio.Lock | None = None
        self._stop: asyncio.Task[None] | None = None
        self._proof: asyncio.Task[None] | None = None
        self._waits: asyncio.Task[None] | None = None
        # On a CPU the first samples compile.
        spec.coordinator.engine_started.remote("compiling, once on this machine" if compiles else "")

    def __del__(self) -> None:
        # Ray Data drops the object when the pool is shut down cleanly. An engine core whose parent exits first dies
        # noisily.
        self.close()

    def close(self) -> None:
        """End the engine and the verifier's processes."""
        for part in ("sampler", "verifier"):
            close = getattr(self.__dict__.pop(part, None), "close", None)
            if close is not None:
                close()
        put_output()

    async def map_rows(self, batch: pa.Table, work: Work) -> list[dict[str, Any]]:
        """Run the batch's rows through `work` and return the output rows, in order.

        Poison problems and those left for the next job have no row.
        """
        if self._stop is None or self._proof is None:
            self._suspects_turn = asyncio.Lock()
            self._stop = asyncio.ensure_future(self._wait_for_stop())
            self._proof = asyncio.ensure_future(self._prove())
            self._waits = asyncio.ensure_future(_tell_waits(self.sampler, self.spec.coordinator))
        await self._proof
        rows = batch.to_pylist()
        admissions = await self._admissions([row["id"] for row in rows])
        tasks = [
            asyncio.ensure_future(self._run_admitted(row, admission, work))
            for row, admission in zip(rows, admissions, strict=True)
        ]
        everything = asyncio.gather(*tasks)
        await asyncio.wait({everything, self._stop}, return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            await asyncio.wait({everything}, timeout=self.spec.setup.engine.grace_s)
        if not everything.done():
            everything.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        else:
            results = everything.result()
        self._report_finished()
        return [row for row in results if isinstance(row, dict)]

    async def _run_admitted(self, row: dict[str, Any], admission: Admission, work: Work) -> dict[str, Any] | None:
        """The output row of one problem; None for poison, and for a problem left for the next job."""
        problem = row["id"]
        match admission:
            case Admission.STOP:
                return None
            case Admission.POISON:
                self._quarantine(row)
                return None
            case Admission.GO:
                return await self._await_or_exit(problem, work(row))
            case Admission.ALONE:
                assert self._suspects_turn is not None
                async with self._suspects_turn:
                    # Its turn may come long after it was admitted.
                    if await self._admissions([problem]) == [Admission.STOP]:
                        return None
                    self._suspect = problem
                    try:
                        survived = await self._await_or_exit(problem, work(row))
                        # Within the turn: calls to the coordinator arrive in order, so this one arrives before the
                        # next suspect's death.
                        self.spec.coordinator.clear_suspect.remote(problem)
                        return survived
                    finally:
                        self._suspect = None

    async def _admissions(self, problems: list[str]) -> list[Admission]:
        return await self.spec.coordinator.begin.remote(problems)

    async def _await_or_exit(self, problem: str, work: Coroutine[Any, Any, Done]) -> dict[str, Any]:
        """Await `work`; if it fails because the engine is dead, exit the process, so that Ray starts another actor."""
        self._in_progress.add(problem)
        metrics.PROBLEMS_IN_WORK.set(len(self._in_progress), **self._labels)
        try:
            row, kind, tokens = await work
        except Exception as error:  # any kind: engine failures are reported, and it is raised again
            if not self.sampler.alive:
                self._leave_dead_engine(error)
            if isinstance(error, EngineError):
                # A server that refuses or is unreachable: the driver shows this, not Ray's traceback around it.
                self._report_finished()
                ray.get(self.spec.coordinator.engine_failed.remote(str(error)))
            raise
        finally:
            self._in_progress.discard(problem)
            metrics.PROBLEMS_IN_WORK.set(len(self._in_progress), **self._labels)
        self._finished[kind] += 1
        self._finished_tokens += tokens
        if time.monotonic() - self._reported_s > _REPORT_S:
            self._report_finished()
        metrics.PROBLEMS.add(outcome=kind, **self._labels)
        metrics.SAMPLED_TOKENS.add(tokens, **self._labels)
        return row

    def _start_engine(self) -> Sampler:
        factory, setup = self.spec.sampler_factory, self.spec.setup
        return start_engine(
            lambda: factory(self.prompts) if factory else open_engine(setup, self.prompts),
            setup.engine.start_tries,
            self.spec.coordinator,
        )

    async def _prove(self) -> None:
        """Have the engine answer a request, if the one before it died without an answer; see the coordinator."""
        if not await self.spec.coordinator.must_prove.remote():
            return
        try:
            await self.sampler.sample(self.prompts.plain(_PROOF), n=1, params=SamplingParams(1, 1.0, 1.0))
        except Exception as error:  # any kind: engine failures are reported, and it is raised again
            if not self.sampler.alive:
                self._leave_dead_engine(error)
            raise
        await self.spec.coordinator.engine_proved.remote()

    def _leave_dead_engine(self, error: Exception) -> None:
        """Exit the process, so that Ray starts another actor.

        Raises:
            EngineError: so many engines have died that another would die too.
        """
        logger.exception("the engine is dead; this actor exits")
        self._report_finished()
        # Awaited: the coordinator must know the suspects before Ray gives their batches to another actor.
        died = self.spec.coordinator.engine_died.remote(
            sorted(self._in_progress), self._suspect, answered=self.sampler.answered
        )
        hopeless: Any = ray.get(died)
        put_output()
        if hopeless:
            reason = f"{hopeless}: {type(error).__name__}: {error}"
            ray.get(self.spec.coordinator.engine_failed.remote(reason))
            raise EngineError(reason) from error
        os._exit(1)

    def _report_finished(self) -> None:
        if self._finished:
            self.spec.coordinator.problems_finished.remote(dict(self._finished), self._finished_tokens)
        usage = self.sampler.usage
        if usage is not None and usage != self._reported_usage:
            self.spec.coordinator.add_usage.remote(usage.since(self._reported_usage))
            self._reported_usage = usage
        self._finished, self._finished_tokens, self._reported_s = Counter(), 0, time.monotonic()

    async def _wait_for_stop(self) -> None:
        try:
            await self.spec.coordinator.stopped.remote()
        except ray.exceptions.RayError:  # the job is gone, and this actor will be soon
            await asyncio.Event().wait()

    def _quarantine(self, row: dict[str, Any]) -> None:
        """Write the problem's line under a name derived from its id, so that writing it again changes nothing."""
        logger.error("problem %s is poison: it goes to quarantine", row["id"])
        metrics.PROBLEMS.add(outcome=str(Reason.POISON), **self._labels)
        line = poison_line(row, self.spec.setup.engine.poison_tries)
        write_poison(at(self.spec.quarantine), row["id"], line)


async def _tell_waits(sampler: WatchdogSampler, coordinator: Any) -> None:
    """Tell the coordinator again and again what the engine waits for, for the screen.

    Not a method: a task that holds the actor's object would keep Ray Data from ending it.
    """
    while True:
        await asyncio.sleep(_WAITS_S)
        if what := sampler.waits():
            coordinator.engine_waits.remote(str(os.getpid()), what)
