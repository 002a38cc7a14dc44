"""The files that training writes with at most one line per step: metrics.jsonl, skipped.jsonl and held_out.jsonl."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from offsft.storage.paths import StoragePath, write_bytes
from offsft.train.batching import BatchPlan
from offsft.train.sums import Sums

NLL = "held_out/nll/"
"""A line of held_out.jsonl has a key for each source: this and its name; nats per token, None where it is no number."""
ALL = "all"
"""The source's name that stands for all tokens together."""


def nll_by_source(line: Mapping[str, Any]) -> dict[str, Any]:
    """The negative log-likelihoods in a line of held_out.jsonl, by source."""
    return {key.removeprefix(NLL): value for key, value in line.items() if key.startswith(NLL)}


class StepLog:
    """JSON lines, at most one per step, also after a restart.

    All ranks know the number of lines; one of them writes, and passes each new line to the listeners.
    """

    def __init__(
        self,
        path: StoragePath,
        first_step: int,
        *,
        write: bool,
        listeners: Sequence[Callable[[dict[str, Any]], None]] = (),
    ) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A kill can leave half a line at the end; steps after the checkpoint are repeated.
        whole = [line for line in lines if line.endswith("}\n")]
        kept = [line for line in whole if json.loads(line)["step"] <= first_step]
        self.lines = len(kept)
        self._path = path if write else None
        self._listeners = listeners
        self._kept = "".join(kept)
        if write and len(kept) < len(lines):
            write_bytes(path, self._kept.encode())

    def add(self, line: dict[str, Any]) -> None:
        self.lines += 1
        if self._path:
            text = json.dumps(line) + "\n"
            if isinstance(self._path, Path):
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(text)
            else:  # S3 objects cannot be appended to; this process alone writes the file
                self._kept += text
                write_bytes(self._path, self._kept.encode())
            for listener in self._listeners:
                listener(line)


def metrics_line(
    step: int, plan: BatchPlan, sums: Sums, rate: float, loss_normalizer: float, seconds: float
) -> dict[str, Any]:
    """A step's line of metrics.jsonl."""
    return {
        "step": step + 1,
        "steps": plan.steps,
        "epoch": step // plan.steps_per_epoch + 1,
        "optim/learning_rate": rate,
        "time/step_s": seconds,
        **sums.metrics(loss_normalizer=loss_normalizer, seconds=seconds),
    }
