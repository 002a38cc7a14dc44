"""The negative log-likelihood of rows that are not trained on, measured along the way on the training's own workers."""

import math
import time
from typing import Any

import numpy as np
import torch
from torch import distributed

from offsft.config import TrainConfig
from offsft.storage.paths import StoragePath, read_json_lines
from offsft.train import phases
from offsft.train.batching import BatchPlan
from offsft.train.columns import ColumnRows
from offsft.train.phases import Phase
from offsft.train.step import even_out, score
from offsft.train.step_log import ALL, NLL, StepLog, nll_by_source


class HeldOut:
    """Measures the held-out rows before the first step, every `train.held_out_every` steps, and after the last.

    Nothing of the training changes: the model is in evaluation mode, which draws no random numbers, and has no gradient.
    Without rows it does nothing. Collective: each rank scores its share, with the same number of forward passes.
    """

    def __init__(
        self, rows: ColumnRows, settings: TrainConfig, *, steps: int, rank: int, ranks: int, log: StepLog
    ) -> None:
        self._rows, self._every, self._steps, self._ranks, self._log = rows, settings.held_out_every, steps, ranks, log
        plan = BatchPlan(rows.lengths_R, max(1, len(rows)), settings.micro_batch_tokens, ranks, seed=0, epochs=1)
        self._batches = even_out(plan.share(rank), ranks) if len(rows) else []

    def measure(self, engine: Any, step: int) -> float | None:
        """The mean over all tokens, nats, after `step` completed steps; None if this step is not measured, or no number.

        All ranks return the same.
        """
        if not len(self._rows) or not (step % self._every == 0 or step == self._steps):
            return None
        phases.begin(Phase.HELD_OUT)
        started_s = time.monotonic()
        found = self._measure(engine)
        self._log.add({"step": step, "steps": self._steps, **found, "time/held_out_s": time.monotonic() - started_s})
        phases.begin(Phase.TRAINING)
        return found[f"{NLL}{ALL}"]

    def _measure(self, engine: Any) -> dict[str, float | None]:
        """Sums in float64 over tokens, micro-batches and ranks, divided once."""
        sums_S2 = np.zeros((len(self._rows.sources), 2))
        for index, logprobs in score(engine, self._rows, self._batches):
            sums_S2[self._rows.source_R[index]] += (-logprobs.sum(dtype=np.float64), len(logprobs))
        if self._ranks > 1:
            together = torch.from_numpy(sums_S2).to(engine.device)
            distributed.all_reduce(together)
            sums_S2 = together.cpu().numpy()
        by_source = dict(zip(self._rows.sources, sums_S2.tolist(), strict=True))
        by_source[ALL] = sums_S2.sum(axis=0).tolist()
        means = {source: nll / tokens for source, (nll, tokens) in by_source.items() if tokens}
        return {f"{NLL}{source}": mean if math.isfinite(mean) else None for source, mean in means.items()}


def held_out_result(log: StoragePath, rows: int) -> dict[str, Any] | None:
    """What train.json says of the held-out rows: the first, the last and the least measurement; None without any rows."""
    if not rows:
        return None
    lines = read_json_lines(log)
    finite = [line for line in lines if line[f"{NLL}{ALL}"] is not None]
    return {
        "rows": rows,
        "before": _of(lines[0]),
        "last": _of(lines[-1]),
        "least": _of(min(finite, key=lambda line: line[f"{NLL}{ALL}"])) if finite else None,
    }


def _of(line: dict[str, Any]) -> dict[str, Any]:
    return {"step": line["step"], "nll": nll_by_source(line)}
