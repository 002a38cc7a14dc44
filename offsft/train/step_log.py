"""The files of one line a step that a training leaves: metrics.jsonl, and skipped.jsonl of the steps left out."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from offsft.batching import Plan
from offsft.storage import StoragePath, write_bytes
from offsft.train.sums import Sums


class StepLog:
    """JSON lines, at most one a step, also after a restart. All ranks know how many there are; one of them writes,
    and tells each new line to whoever else is to know."""

    def __init__(
        self, path: StoragePath, first_step: int, *, write: bool, tell: Sequence[Callable[[dict[str, Any]], None]] = ()
    ) -> None:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A kill can leave half a line at the end; steps after the checkpoint are done again.
        whole = [line for line in lines if line.endswith("}\n")]
        kept = [line for line in whole if json.loads(line)["step"] <= first_step]
        self.lines = len(kept)
        self._path = path if write else None
        self._tell = tell
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
            else:  # nothing can be appended to on S3; this process alone writes the file
                self._kept += text
                write_bytes(self._path, self._kept.encode())
            for tell in self._tell:
                tell(line)


def metrics_line(step: int, plan: Plan, sums: Sums, rate: float, mass: float, seconds: float) -> dict[str, Any]:
    """A step's line of metrics.jsonl."""
    return {
        "step": step + 1,
        "steps": plan.steps,
        "epoch": step // plan.steps_per_epoch + 1,
        "optim/learning_rate": rate,
        "time/step_s": seconds,
        **sums.metrics(mass=mass, seconds=seconds),
    }
