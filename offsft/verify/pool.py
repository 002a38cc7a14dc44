"""Verification in processes that are killed when they take too long or too much memory."""

import asyncio
import logging
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError

from pebble import ProcessExpired, ProcessPool

from offsft.protocols import Verdict
from offsft.records import Outcome, Problem

Judge = Callable[[str, str], Verdict]


class VerifierPool:
    """A Verifier over a pool of processes. One response that hangs or explodes costs its own process only.

    `judge` is a module-level function of response and reference answer; `warm_up` a call of it that a new process
    makes first, so that imports do not count as verification.
    """

    def __init__(
        self, judge: Judge, *, workers: int, timeout_s: float, memory_mb: int, warm_up: tuple[str, str]
    ) -> None:
        self._judge = judge
        self._timeout_s = timeout_s
        self.timeouts = 0
        self.errors = 0
        self._pool = ProcessPool(
            max_workers=workers,
            # Fresh interpreters: a fork of a process with engine threads can deadlock.
            context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=(judge, warm_up, memory_mb),
        )

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        future = self._pool.schedule(self._judge, args=(response, problem.answer), timeout=self._timeout_s)
        try:
            return await asyncio.wrap_future(future)
        except (FutureTimeoutError, TimeoutError):
            self.timeouts += 1
            return Verdict(Outcome.TIMEOUT)
        except (ProcessExpired, MemoryError, RecursionError):
            self.errors += 1
            return Verdict(Outcome.ERROR)
        except Exception:  # math-verify and sympy raise of all kinds on hostile text: counted, and never correct
            self.errors += 1
            return Verdict(Outcome.ERROR)

    def close(self) -> None:
        """End the processes at once."""
        self._pool.stop()
        self._pool.join()


def _prepare(judge: Judge, warm_up: tuple[str, str], memory_mb: int) -> None:
    # math-verify warns at each call that its own time limit is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    judge(*warm_up)
    # On top of what the imports have mapped already; a breach is a MemoryError, or ends the process.
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    limit = mapped + memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
