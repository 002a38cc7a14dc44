"""A verifier whose times and verdicts are metrics."""

import time

from offsft.protocols import Verdict
from offsft.records import Problem
from offsft.runtime import metrics
from offsft.verify import OpenVerifier


class VerifierWithMetrics:
    """Records the time and the verdicts of another verifier; `close` closes that verifier."""

    def __init__(self, verifier: OpenVerifier, run: str) -> None:
        self._verifier = verifier
        self._run = run

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        started_s = time.monotonic()
        verdict = await self._verifier(response, problem)
        metrics.VERIFICATION_SECONDS.observe(time.monotonic() - started_s, run=self._run)
        metrics.VERDICTS.add(run=self._run, outcome=str(verdict.outcome))
        return verdict

    def close(self) -> None:
        self._verifier.close()
