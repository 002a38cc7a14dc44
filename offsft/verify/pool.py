"""Verification in processes that are killed when they take too long or too much memory."""

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
"""A response counts as an error when so many processes died with it."""
_BROKEN_POOLS = 4
"""The same for whole pools that broke."""
_CHECK_S = 1.0
"""How often a waiting call looks whether its pool is still alive, seconds."""
_START_S = 120.0
"""Beyond the time limit: a pool that has given no verdict by then is stuck, seconds."""
_CPU_MARGIN_S = 2
"""CPU time over the limit after which a process that nobody kills any more ends by itself, seconds."""


class VerifierPool:
    """A Verifier over a pool of processes. One response that hangs or explodes costs its own process only.

    `judge` is picklable; `warm_up` a response and a problem that a new process judges
    first, so that imports do not count as verification. `timeouts` and `errors` count such verdicts.

    Raises:
        OffsftError: from a call, if the processes do not even start.
    """

    def __init__(
        self, judge: Judge, *, workers: int, timeout_s: float, memory_mb: int, warm_up: tuple[str, Problem]
    ) -> None:
        self._judge = judge
        self._workers = workers
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._warm_up = warm_up
        # What waits does so here: in the pool it would be lost with it.
        self._free = asyncio.Semaphore(workers)
        self._has_worked = False
        self._closed = False
        self.timeouts = 0
        self.errors = 0
        self._pool = self._started()

    async def __aenter__(self) -> "VerifierPool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        async with self._free:
            verdict = await self._tried(response, problem)
        self.timeouts += verdict.outcome is Outcome.TIMEOUT
        self.errors += verdict.outcome is Outcome.ERROR
        return verdict

    def close(self) -> None:
        """End the processes at once; calls that still wait end with an error."""
        self._closed = True
        self._pool.stop()
        self._pool.join()

    async def _tried(self, response: str, problem: Problem) -> Verdict:
        """A judgement, from another process where the first may have died of another response."""
        deaths = broken_pools = 0
        while deaths < _DEATHS and broken_pools < _BROKEN_POOLS:
            pool = self._pool
            try:
                verdict = await self._judged(pool, response, problem)
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

    async def _judged(self, pool: ProcessPool, response: str, problem: Problem) -> Verdict:
        """One judgement.

        Raises:
            ProcessExpired: a process died. Pebble may name the response that it had just finished with.
            RuntimeError: the pool is closed or broken, as Pebble's is when a process dies that had nothing to do.
        """
        work = (self._judge, response, problem, self._timeout_s)
        future = asyncio.wrap_future(pool.schedule(_judge_within_limits, args=work, timeout=self._timeout_s))
        give_up = time.monotonic() + _START_S + self._timeout_s
        try:
            # A broken pool may forget what it had queued: waiting for the future alone could be for ever.
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
        self._pool = self._started()
        broken.stop()
        # Nobody waits for it: what broke a pool may also keep it from ending.
        threading.Thread(target=broken.join, name="broken-verifier", daemon=True).start()

    def _started(self) -> ProcessPool:
        pool = ProcessPool(
            max_workers=self._workers,
            # Fresh interpreters: a fork of a process with engine threads can deadlock.
            context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(self._judge, self._warm_up, self._memory_mb),
        )
        # Asking is what starts it: the warm-up then runs while the caller does something else.
        if not pool.active:
            raise OffsftError("the verifying processes cannot be started; their errors are in the log")
        return pool


def _prepare(judge: Judge, warm_up: tuple[str, Problem], memory_mb: int) -> None:
    # math-verify warns at each call that its own time limit is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    judge(*warm_up)
    # On top of what the imports have mapped already; a breach is a MemoryError, or ends the process.
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    limit = mapped + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _judge_within_limits(judge: Judge, response: str, problem: Problem, timeout_s: float) -> Verdict:
    """Runs in a verifying process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The pool kills at the time limit. This is for the process whose parent has died and that would compute for ever.
    cpu_s = math.ceil(usage.ru_utime + usage.ru_stime + timeout_s) + _CPU_MARGIN_S
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
    try:
        return judge(response, problem)
    except MemoryError:
        os._exit(1)  # what is left of the memory may be too little for the next response
    except Exception as error:  # math-verify and sympy raise of all kinds on hostile text: counted, and never correct
        return Verdict(Outcome.ERROR, why=f"{type(error).__name__}: {error}"[:200])
