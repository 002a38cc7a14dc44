"""Verification in processes that are killed when they exceed their time or memory limit."""

import asyncio
import logging
import math
import multiprocessing
import os
import resource
import threading
import time

from pebble import ProcessExpired, ProcessPool

from offsft.errors import OffsftError
from offsft.protocols import Judge, Verdict
from offsft.records import Outcome, Problem

_DEATHS = 2
"""A response counts as an error after this many process deaths while judging it."""
_BROKEN_POOLS = 4
"""The same limit for whole broken pools."""
_CHECK_S = 1.0
"""Interval at which a waiting call checks that its pool is alive, seconds."""
_START_S = 120.0
"""A pool that has given no verdict this long after the time limit is considered stuck, seconds."""
_CPU_MARGIN_S = 2
"""CPU time beyond the limit after which a process without a living parent is ended, seconds."""


class VerifierPool:
    """A Verifier over a pool of processes; a response that hangs or explodes costs only its own process.

    `judge` is picklable; `warm_up` is a response and a problem that a new process judges first, so that imports do not
    count as verification. `timeouts` and `errors` count such verdicts.

    Raises:
        OffsftError: from a call, if the processes cannot start.
    """

    def __init__(
        self, judge: Judge, *, workers: int, timeout_s: float, memory_mb: int, warm_up: tuple[str, Problem]
    ) -> None:
        self._judge = judge
        self._workers = workers
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._warm_up = warm_up
        # Calls queue here: queued in the pool, they would be lost with it.
        self._free = asyncio.Semaphore(workers)
        self._has_worked = False
        self._closed = False
        self.timeouts = 0
        self.errors = 0
        self._pool = self._start()

    async def __aenter__(self) -> "VerifierPool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        async with self._free:
            verdict = await self._judge_with_retry(response, problem)
        self.timeouts += verdict.outcome is Outcome.TIMEOUT
        self.errors += verdict.outcome is Outcome.ERROR
        return verdict

    def close(self) -> None:
        """Kill the processes at once; waiting calls end with an error."""
        self._closed = True
        self._pool.stop()
        self._pool.join()

    async def _judge_with_retry(self, response: str, problem: Problem) -> Verdict:
        """Judge a response, retrying in another process, since the first may have died of another response."""
        deaths = broken_pools = 0
        while deaths < _DEATHS and broken_pools < _BROKEN_POOLS:
            pool = self._pool
            try:
                verdict = await self._judge_once(pool, response, problem)
            except ProcessExpired:
                deaths += 1
            except RuntimeError:
                broken_pools += 1
                self._replace(pool)
            else:
                self._has_worked = True
                return verdict
        if not deaths and not self._has_worked:
            raise OffsftError(
                f"the verifying processes end as soon as they start, {broken_pools} times in a row; their errors are"
                f" in the log. Is there memory for verify.workers={self._workers} more processes?"
            )
        return Verdict(Outcome.ERROR, why="the verifying process died of it, twice")

    async def _judge_once(self, pool: ProcessPool, response: str, problem: Problem) -> Verdict:
        """Judge a response once.

        Raises:
            ProcessExpired: a process died; Pebble may blame the response that it had just finished.
            RuntimeError: the pool is closed or broken, as Pebble's is when an idle process dies.
        """
        work = (self._judge, response, problem, self._timeout_s)
        future = asyncio.wrap_future(pool.schedule(_judge_within_limits, args=work, timeout=self._timeout_s))
        give_up = time.monotonic() + _START_S + self._timeout_s
        try:
            # A broken pool may forget its queue: waiting for the future alone could last forever.
            while not future.done():
                await asyncio.wait({future}, timeout=_CHECK_S)
                if not future.done() and (not pool.active or time.monotonic() > give_up):
                    raise RuntimeError("the pool is broken")
            return future.result()
        except TimeoutError:
            return Verdict(Outcome.TIMEOUT, why=f"not judged within verify.timeout_s={self._timeout_s:g}")
        finally:
            future.cancel()

    def _replace(self, broken: ProcessPool) -> None:
        if self._pool is not broken:
            return  # another call has done so
        if self._closed:
            raise OffsftError("the verifier is closed; open another one")
        logging.getLogger(__name__).warning("the verifying processes are started again")
        self._pool = self._start()
        broken.stop()
        # Joined in the background: what broke a pool may also keep it from ending.
        threading.Thread(target=broken.join, name="broken-verifier", daemon=True).start()

    def _start(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=self._workers,
            # Fresh interpreters: a fork of a process with engine threads can deadlock.
            context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self._judge, self._warm_up, self._memory_mb),
        )
        # Reading `active` starts the pool: the warm-up then runs while the caller does something else.
        if not pool.active:
            raise OffsftError("the verifying processes cannot be started; their errors are in the log")
        return pool


def _prepare(judge: Judge, warm_up: tuple[str, Problem], memory_mb: int) -> None:
    # math-verify warns on each call that its own time limit is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    judge(*warm_up)
    # In addition to the memory that the imports have mapped; a breach is a MemoryError, or ends the process.
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    limit = mapped + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _judge_within_limits(judge: Judge, response: str, problem: Problem, timeout_s: float) -> Verdict:
    """Judge a response within the CPU limit; runs in a verifier process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The pool kills at the time limit. This ends a process whose parent has died, which would otherwise run forever.
    cpu_s = math.ceil(usage.ru_utime + usage.ru_stime + timeout_s) + _CPU_MARGIN_S
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
    try:
        return judge(response, problem)
    except MemoryError:
        os._exit(1)  # the remaining memory may be too little for the next response
    except Exception as error:  # math-verify and sympy raise all kinds on hostile text: counted, and never correct
        return Verdict(Outcome.ERROR, why=f"{type(error).__name__}: {error}"[:200])
