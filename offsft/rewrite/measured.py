"""What rewriting tells as metrics while it runs, beside what every stage does."""

import numpy as np

from offsft import metrics
from offsft.gap import GapSums
from offsft.records import Rewrite

_WHEN = "rewriting"


class Measured:
    """One engine's rewrites so far."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gaps = {"expert": GapSums(), "kept": GapSums()}

    def add(self, done: Rewrite) -> None:
        for attempt in done.attempts:
            metrics.ATTEMPTS.add(run=self._run, source=str(attempt.stage), outcome=str(attempt.outcome))
        metrics.KEPT_TOKENS.add(len(done.response_ids), run=self._run, source=str(done.source))
        kept, expert = np.array(done.policy_logprobs), np.array(done.expert_logprobs)
        behavior = 0.0 if done.behavior_logprobs is None else np.array(done.behavior_logprobs)
        self._tell("kept", kept, kept - behavior)
        self._tell("expert", expert, expert)

    def _tell(self, responses: str, logprobs_T: np.ndarray, log_ratios_T: np.ndarray) -> None:
        sums = self._gaps[responses]
        sums.add(logprobs_T, log_ratios_T, np.array([len(log_ratios_T)]))
        found = sums.statistics()
        labels = {"run": self._run, "responses": responses, "when": _WHEN}
        metrics.GAP_MEAN_LOG_RATIO.set(found["mean_log_ratio"], **labels)
        metrics.GAP_ESS.set(found["ess_share"], **labels)
