"""The metrics that rewriting records while it runs, in addition to those of every stage of a run."""

from collections import Counter

import numpy as np

from offsft.gap import GapSums
from offsft.records import EXPERT, Rewrite
from offsft.runtime import metrics

_WHEN = "rewriting"


class RewriteMetrics:
    """Records metrics of one engine's rewrites, batch by batch: recording per row would cost more than the row."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gaps = {"expert": GapSums(), "kept": GapSums()}
        self._pending: list[Rewrite] = []

    def add(self, done: Rewrite) -> None:
        """Add a rewrite, to be recorded with the next batch."""
        self._pending.append(done)

    def record(self) -> None:
        """Record the rewrites added since the last call."""
        rows, self._pending = self._pending, []
        if not rows:
            return
        attempts = Counter((attempt.stage, str(attempt.outcome)) for row in rows for attempt in row.attempts)
        for (source, outcome), count in attempts.items():
            metrics.ATTEMPTS.add(count, run=self._run, source=source, outcome=outcome)
        kept_tokens: Counter[str] = Counter()
        for row in rows:
            kept_tokens[row.source] += len(row.response_ids)
        for source, tokens in kept_tokens.items():
            metrics.KEPT_TOKENS.add(tokens, run=self._run, source=source)
        kept = [(np.array(row.policy_logprobs), _behavior(row)) for row in rows if _is_measured(row)]
        expert = [np.array(row.expert_logprobs) for row in rows if row.expert_logprobs is not None]
        self._record_gap("kept", [p for p, _ in kept], [p - q for p, q in kept])
        self._record_gap("expert", expert, expert)

    def _record_gap(self, responses: str, logprobs: list[np.ndarray], log_ratios: list[np.ndarray]) -> None:
        """Record the gap; `logprobs` and `log_ratios` hold one array `(T)` per row, and no rows record nothing."""
        if not logprobs:
            return
        sums = self._gaps[responses]
        lengths_R = np.array([len(each) for each in log_ratios])
        sums.add(np.concatenate(logprobs), np.concatenate(log_ratios), lengths_R)
        found = sums.statistics()
        labels = {"run": self._run, "responses": responses, "when": _WHEN}
        metrics.GAP_MEAN_LOG_RATIO.set(found["mean_log_ratio"], **labels)
        metrics.GAP_ESS.set(found["ess_share"], **labels)


def _is_measured(row: Rewrite) -> bool:
    """Whether both log-probs of the kept response are known; a demonstration's behavior probability counts as 1."""
    known = row.behavior_logprobs is not None or row.source == EXPERT
    return known and bool(row.policy_logprobs)


def _behavior(row: Rewrite) -> np.ndarray:
    return np.zeros(len(row.response_ids)) if row.behavior_logprobs is None else np.array(row.behavior_logprobs)
