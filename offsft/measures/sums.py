"""The measures of a run by source, accumulated row by row."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offsft.measures.variety import Variety

UNSUPPORTED = math.log(0.1)
"""A value with a smaller log-prob (nats) at one of its places counts as unsupported in a run's figures."""
_QUANTILE = 0.05
_MEANS = ("copied_tokens", "copied_share", "expert_length", "own_length", "doubt", "own_doubt", "hint_lift")


@dataclass(slots=True)
class Mean:
    """Incremental mean of any number of values; None if there are none."""

    total: float = 0.0
    n: int = 0

    def add(self, values: Sequence[float]) -> None:
        self.total += sum(values)
        self.n += len(values)

    @property
    def value(self) -> float | None:
        return self.total / self.n if self.n else None


@dataclass(slots=True)
class MeasureSums:
    """The measures of one source's rows, each as in `offsft.records.Measures`."""

    rows: int = 0
    leaks: int = 0
    bare: int = 0
    with_false_steps: int = 0
    steps: dict[str, int] = field(default_factory=lambda: {"holding": 0, "false": 0, "not_judged": 0})
    first: "array[float]" = field(default_factory=lambda: array("d"))
    last: "array[float]" = field(default_factory=lambda: array("d"))
    least: "array[float]" = field(default_factory=lambda: array("d"))
    means: dict[str, Mean] = field(default_factory=lambda: {name: Mean() for name in _MEANS})
    variety: Variety = field(default_factory=Variety)

    def add(self, measures: Mapping[str, Any], ids: Sequence[int]) -> None:
        """Add a kept response: its measures as a row holds them, and its token ids."""
        self.rows += 1
        self.leaks += measures["leak"] is not None
        self.bare += bool(measures["bare"])
        self.with_false_steps += bool(measures["false_steps"])
        for name, column in (
            ("holding", "holding_steps"),
            ("false", "false_steps"),
            ("not_judged", "steps_not_judged"),
        ):
            self.steps[name] += measures[column] or 0
        first, last = measures["support_first"], measures["support_last"]
        known = [each for each in (first, last) if each is not None]
        for values, value in ((self.first, first), (self.last, last), (self.least, min(known, default=None))):
            if value is not None:
                values.append(value)
        for name, mean in self.means.items():
            mean.add([] if measures[name] is None else [measures[name]])
        self.variety.add(ids)

    def statistics(self) -> dict[str, Any]:
        """Figures of the source; shares are of its rows, of those that could be measured. None: none could."""
        return {
            "rows": self.rows,
            "support_rows": len(self.least),
            "unsupported_share": _share_below(self.least),
            "unsupported_first_share": _share_below(self.first),
            "unsupported_last_share": _share_below(self.last),
            "support_first_p5": _quantile(self.first),
            "support_last_p5": _quantile(self.last),
            "false_step_share": self.with_false_steps / self.rows if self.rows else None,
            "steps": dict(self.steps),
            "leak_share": self.leaks / self.rows if self.rows else None,
            "bare_share": self.bare / self.rows if self.rows else None,
            **{name: mean.value for name, mean in self.means.items()},
            "distinct_grams": self.variety.share,
            "distinct_grams_tokens": self.variety.tokens,
        }


def _share_below(values: Sequence[float]) -> float | None:
    return sum(value < UNSUPPORTED for value in values) / len(values) if values else None


def _quantile(values: Sequence[float]) -> float | None:
    """What one in twenty values lies below: of a run's own responses, a limit that a guard would do them no harm at."""
    return float(np.quantile(values, _QUANTILE)) if values else None
