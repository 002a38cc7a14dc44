"""A moving reference: log-probs under the policy in training as it was a few steps ago."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from offsft.train.batching import BatchPlan
from offsft.train.rows import Row, RowSource
from offsft.train.step import score


class MovingReference:
    """Scores the rows of the next `every` steps before the first of them, and adds the log-probs to these rows.

    Each rank scores and keeps the rows that it will train on. They go into its part of a checkpoint: after a restart
    between two refreshes, the policy of the last refresh is gone.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._logprobs: dict[int, np.ndarray] = {}

    def refresh(self, engine: Any, rows: RowSource, plan: BatchPlan, step: int, rank: int) -> None:
        """Recompute the reference if `step` is the first of its window. Collective."""
        if not self._every or step % self._every:
            return
        self._logprobs = {}
        for later in range(step, min(step + self._every, plan.steps)):
            self._logprobs |= dict(score(engine, rows, plan.micro_batches(later, rank)))

    def of(self, rows: RowSource) -> RowSource:
        """The rows with their reference log-probs, for those of the window that this rank trains on."""
        return _Referenced(rows, self._logprobs) if self._every else rows

    def state(self) -> dict[int, np.ndarray]:
        """The log-probs that a checkpoint stores."""
        return self._logprobs

    def load(self, state: dict[int, np.ndarray]) -> None:
        """Restore the log-probs from a checkpoint."""
        self._logprobs = state


class _Referenced:
    def __init__(self, rows: RowSource, logprobs: dict[int, np.ndarray]) -> None:
        self._rows, self._logprobs = rows, logprobs

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return replace(self._rows[index], reference=self._logprobs.get(index))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))
