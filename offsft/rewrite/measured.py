"""What rewriting tells as metrics while it runs, beside what every stage does."""

from collections import Counter

import numpy as np

from offsft import metrics
from offsft.gap import GapSums
from offsft.records import Rewrite

_WHEN = "rewriting"


class Measured:
    """One engine's rewrites so far. They are told batch by batch: for each row alone it would cost more than the row."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gaps = {"expert": GapSums(), "kept": GapSums()}
        self._untold: list[Rewrite] = []

    def add(self, done: Rewrite) -> None:
        """Count a rewrite in, to be told with the next batch."""
        self._untold.append(done)

    def tell(self) -> None:
        """Tell what was added since the last time."""
        rows, self._untold = self._untold, []
        if not rows:
            return
        attempts = Counter((str(attempt.stage), str(attempt.outcome)) for row in rows for attempt in row.attempts)
        for (source, outcome), count in attempts.items():
            metrics.ATTEMPTS.add(count, run=self._run, source=source, outcome=outcome)
        kept_tokens: Counter[str] = Counter()
        for row in rows:
            kept_tokens[str(row.source)] += len(row.response_ids)
        for source, tokens in kept_tokens.items():
            metrics.KEPT_TOKENS.add(tokens, run=self._run, source=source)
        kept = [np.array(row.policy_logprobs) for row in rows]
        behavior = [
            np.zeros(len(row.policy_logprobs)) if row.behavior_logprobs is None else np.array(row.behavior_logprobs)
            for row in rows
        ]
        expert = [np.array(row.expert_logprobs) for row in rows]
        self._tell_gap("kept", kept, [p - q for p, q in zip(kept, behavior, strict=True)])
        self._tell_gap("expert", expert, expert)

    def _tell_gap(self, responses: str, logprobs: list[np.ndarray], log_ratios: list[np.ndarray]) -> None:
        """`logprobs` and `log_ratios` hold an array `(T)` for each row."""
        sums = self._gaps[responses]
        lengths_R = np.array([len(each) for each in log_ratios])
        sums.add(np.concatenate(logprobs), np.concatenate(log_ratios), lengths_R)
        found = sums.statistics()
        labels = {"run": self._run, "responses": responses, "when": _WHEN}
        metrics.GAP_MEAN_LOG_RATIO.set(found["mean_log_ratio"], **labels)
        metrics.GAP_ESS.set(found["ess_share"], **labels)
