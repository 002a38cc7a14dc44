"""The comparison's table: accuracies with confidence intervals from a paired bootstrap over problems."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offsft.evaluate.statistics import (
    ScoreEstimate,
    estimate,
    outcome_share,
    share_correct,
    share_correct_of_complete,
)
from offsft.evaluate.table import Answered
from offsft.records import Outcome
from offsft.storage.paths import StoragePath, nan_to_null, write_json, write_text_atomically

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class ArmAnswers:
    """What one trained model answered, without the problems that chose the learning rate."""

    accuracy: dict[str, float]
    """Share of correct samples per problem, by id."""
    retention: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same for each suite of `evaluate.retention`."""
    truncated_share: float = 0.0
    """Share of the samples that were cut off."""
    complete_mean: float = math.nan
    """Share of correct samples among those that were not."""
    mean_tokens: float = math.nan
    kl: float | None = None
    """KL divergence from the base model, nats per token."""

    @classmethod
    def of(
        cls,
        suites: Mapping[str, Mapping[str, Answered]],
        retention: Collection[str],
        left_out: frozenset[str],
        kl: float | None,
    ) -> "ArmAnswers":
        """From the judged samples by suite and problem, as `answered_by_suite` returns them."""
        reported = {
            key: each
            for suite, answered in suites.items()
            if suite not in retention
            for key, each in answered.items()
            if key not in left_out
        }
        samples = [sample for each in reported.values() for sample in each.samples]
        return cls(
            {key: share_correct(each.samples) for key, each in reported.items()},
            {
                suite: {key: share_correct(each.samples) for key, each in suites[suite].items()}
                for suite in retention
                if suite in suites
            },
            outcome_share(samples, Outcome.TRUNCATED),
            share_correct_of_complete(samples),
            float(np.mean([sample.tokens for sample in samples])),
            kl,
        )


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The results behind one row of the table; lists have one entry per seed."""

    name: str
    objective: str | None
    rewriting: bool
    answers: list[ArmAnswers]
    metrics: list[list[dict[str, Any]]]
    trained: list[dict[str, Any]]
    rewrite: dict[str, Any]
    """The rewriting's result if the row depends on it."""
    learning_rate: float | None = None
    grid: list[dict[str, Any]] = field(default_factory=list)
    """The learning rates that were tried, each with its validation accuracy."""


def table_rows(measured: Sequence[ArmResult], suite: str) -> list[dict[str, Any]]:
    """The table's rows: mean accuracy with its 95 % interval, and the same for the difference to the first row.

    The problems are drawn with replacement, with the same draws for every row, so that differences are paired; each
    problem's accuracy is its mean over the seeds. `seed_std` is the standard deviation over the seeds. Figures that
    could not be measured are None.
    """
    ids = sorted(measured[0].answers[0].accuracy)
    scores = np.array([_scores([seed.accuracy for seed in row.answers], ids) for row in measured])
    rows = []
    for number, row in enumerate(measured):
        by_seed = [float(np.mean([seed.accuracy[key] for key in ids])) for seed in row.answers]
        found: dict[str, Any] = {
            "name": row.name,
            "rewriting": row.rewriting,
            "objective": row.objective,
            "suite": suite,
            "problems": len(ids),
            "seeds": len(row.answers),
            **_with_interval(estimate(scores[number], RESAMPLES)),
            "seed_std": float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
            "truncated_share": _mean([seed.truncated_share for seed in row.answers]),
            "complete_mean": _mean([seed.complete_mean for seed in row.answers]),
            "mean_tokens": _mean([seed.mean_tokens for seed in row.answers]),
        }
        if number:
            found |= {
                "difference": _with_interval(estimate(scores[number] - scores[0], RESAMPLES)),
                "kl": _mean([seed.kl for seed in row.answers]),
                "retention": _retention(measured[0], row),
                "learning_rate": row.learning_rate,
                "grid": row.grid,
                "cost": {
                    "train_seconds": _mean([run["seconds"] for run in row.trained]),
                    "train_tokens": _mean([run["tokens"] for run in row.trained]),
                    "sampled_tokens": row.rewrite.get("generated_tokens", 0),
                    "rewrite_seconds": row.rewrite.get("seconds", 0.0),
                },
                "final_nll": _mean([run["final_nll"] for run in row.trained]),
                "mean_grad_norm": _mean([line["optim/grad_norm"] for run in row.metrics for line in run]),
                "grad_norm_seed_spread": _seed_spread(row.metrics),
                **_held_out(row.trained),
            }
        rows.append(found)
    return nan_to_null(rows)


def _scores(seeds: Sequence[Mapping[str, float]], ids: Sequence[str]) -> np.ndarray:
    """Each problem's accuracy, mean over the seeds, `(problems)`."""
    return np.array([np.mean([seed[key] for seed in seeds]) for key in ids])


def _retention(base: ArmResult, row: ArmResult) -> dict[str, dict[str, float]]:
    """By suite: how much better than the base the arm is, with its 95 % interval, paired by problem."""
    found = {}
    for suite, of_base in base.answers[0].retention.items():
        ids = sorted(of_base)
        difference = _scores([seed.retention[suite] for seed in row.answers], ids) - _scores([of_base], ids)
        found[suite] = _with_interval(estimate(difference.tolist(), RESAMPLES))
    return found


def _seed_spread(metrics: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """Standard deviation of the gradient norm over the seeds, step by step, as a share of its mean; None for one seed."""
    if len(metrics) < 2:
        return None
    norms_SN = np.array([[line["optim/grad_norm"] for line in run] for run in metrics])
    return float(np.mean(norms_SN.std(axis=0, ddof=1) / norms_SN.mean(axis=0)))


def _held_out(trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of the last held-out nll, by source; empty where none was held out."""
    last = [run["held_out"]["last"]["nll"] for run in trained if run.get("held_out")]
    if not last or len(last) < len(trained):
        return {}
    values = {source: [nll.get(source) for nll in last] for source in last[0]}
    return {
        "held_out_nll": {source: _mean(each) for source, each in values.items()},
        "held_out_nll_seed_std": {source: _spread(each) for source, each in values.items()} if len(last) > 1 else None,
    }


def _spread(values: Sequence[float | None]) -> float:
    return float(np.std(np.array(values, dtype=np.float64), ddof=1))


def _mean(values: Sequence[float | None]) -> float:
    """The mean of the values; NaN if one of them could not be measured."""
    return float(np.mean(np.array(values, dtype=np.float64)))


def _with_interval(score: ScoreEstimate) -> dict[str, float]:
    return {"mean": score.mean, "low": score.low, "high": score.high}


def write_table(rows: list[dict[str, Any]], folder: StoragePath) -> None:
    """Write `table.json`, and `table.md` for human readers."""
    write_json(folder / "table.json", {"rows": rows})
    write_text_atomically(folder / "table.md", markdown(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown; accuracies in percent with 95 % intervals. Below it, the learning rates that were tried."""
    suites = list(rows[-1].get("retention", {}))
    held_out = any("held_out_nll" in row for row in rows)
    names = [
        "accuracy, % (95 %)",
        "change to base, points",
        "without cut answers, %",
        "cut, %",
        "tokens",
        "KL from base, nats per token",
        *(f"{suite}, points" for suite in suites),
        "learning rate",
        "seeds",
        "final nll",
        *["held-out nll (std over seeds)"] * held_out,
        "gradient norm (spread over seeds)",
        "training",
    ]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {row['name']} | {' | '.join(_cells(row, suites, held_out=held_out))} |" for row in rows]
    return "\n".join([*lines, *_grid_lines(rows)]) + "\n"


def _cells(row: Mapping[str, Any], suites: Sequence[str], *, held_out: bool) -> list[str]:
    answers = [
        _number(row["complete_mean"], ".1%").rstrip("%"),
        f"{100 * row['truncated_share']:.1f}",
        f"{row['mean_tokens']:.0f}",
    ]
    if "difference" not in row:
        return [_percent(row), "", *answers, *[""] * (6 + len(suites) + held_out)]
    return [
        _percent(row),
        _points(row["difference"]),
        *answers,
        _number(row["kl"], ".4f"),
        *(_points(row["retention"][suite]) for suite in suites),
        _number(row["learning_rate"], "g"),
        str(row["seeds"]),
        _number(row["final_nll"], ".2f"),
        *[_held_out_cell(row)] * held_out,
        _number(row["mean_grad_norm"], ".2f") + _in_brackets(row["grad_norm_seed_spread"], ".0%"),
        f"{row['cost']['train_seconds']:.0f} s",
    ]


def _held_out_cell(row: Mapping[str, Any]) -> str:
    if "held_out_nll" not in row:
        return ""
    spread = row["held_out_nll_seed_std"]
    return _number(row["held_out_nll"]["all"], ".3f") + _in_brackets(spread["all"] if spread else None, ".3f")


def _in_brackets(value: float | None, form: str) -> str:
    return "" if value is None else f" ({value:{form}})"


def _grid_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The validation accuracies that chose the learning rates, if any were tried."""
    tried = [row for row in rows if any(entry["mean"] is not None for entry in row.get("grid", []))]
    if not tried:
        return []
    rates = [entry["learning_rate"] for entry in tried[0]["grid"]]
    lines = ["", f"| learning rate | {' | '.join(f'{rate:g}' for rate in rates)} |", "|---" * (len(rates) + 1) + "|"]
    for row in tried:
        lines.append(f"| {row['name']}, validation | {' | '.join(_percent(entry) for entry in row['grid'])} |")
    return lines


def _percent(score: Mapping[str, float]) -> str:
    return f"{100 * score['mean']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _points(change: Mapping[str, float]) -> str:
    return f"{100 * change['mean']:+.1f} ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})"


def _number(value: float | None, form: str) -> str:
    """A figure as text; empty if it was not measured."""
    return "" if value is None else format(value, form)
