"""The comparison's table: accuracies with confidence intervals from a paired bootstrap over problems."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offsft.run_folder import write_text_atomically
from offsft.storage import StoragePath

RESAMPLES = 10_000
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one row of the table. Lists have one entry a seed."""

    name: str
    objective: str | None
    rewriting: bool
    accuracy: list[dict[str, float]]
    """Share of correct samples of each problem, by id."""
    metrics: list[list[dict[str, Any]]]
    trained: list[dict[str, Any]]
    rewrite: dict[str, Any]
    """The rewriting's result where the row rests on it."""


def table_rows(measured: Sequence[Measured], suite: str) -> list[dict[str, Any]]:
    """One row each: mean accuracy and 95 % interval, and the same of the difference to the first row.

    The problems are drawn with replacement, the same draws for every row, so that differences are paired; each
    problem's accuracy is its mean over the seeds. What seeds alone move is `seed_std`.
    """
    ids = sorted(measured[0].accuracy[0])
    scores = np.array([[np.mean([seed[key] for seed in row.accuracy]) for key in ids] for row in measured])
    draws = np.random.default_rng(0).integers(len(ids), size=(RESAMPLES, len(ids)))
    resampled = scores[:, draws].mean(axis=2)
    rows = []
    for number, row in enumerate(measured):
        low, high = np.quantile(resampled[number], INTERVAL)
        change = resampled[number] - resampled[0]
        by_seed = [float(np.mean([seed[key] for key in ids])) for seed in row.accuracy]
        found: dict[str, Any] = {
            "name": row.name,
            "rewriting": row.rewriting,
            "objective": row.objective,
            "suite": suite,
            "problems": len(ids),
            "seeds": len(row.accuracy),
            "mean": float(scores[number].mean()),
            "low": float(low),
            "high": float(high),
            "seed_std": float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
        }
        if number:
            found["difference"] = {
                "mean": float(scores[number].mean() - scores[0].mean()),
                **dict(zip(("low", "high"), (float(edge) for edge in np.quantile(change, INTERVAL)), strict=True)),
            }
            found["cost"] = {
                "train_seconds": float(np.mean([run["seconds"] for run in row.trained])),
                "train_tokens": float(np.mean([run["tokens"] for run in row.trained])),
                "sampled_tokens": row.rewrite.get("generated_tokens", 0),
                "rewrite_seconds": row.rewrite.get("seconds", 0.0),
            }
            found["final_nll"] = float(np.mean([run["final_nll"] for run in row.trained]))
            found["mean_grad_norm"] = float(np.mean([line["optim/grad_norm"] for run in row.metrics for line in run]))
        rows.append(found)
    return rows


def write_table(rows: list[dict[str, Any]], folder: StoragePath) -> None:
    """`table.json`, and `table.md` for people."""
    write_text_atomically(folder / "table.json", json.dumps({"rows": rows}, indent=2) + "\n")
    write_text_atomically(folder / "table.md", markdown(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown; accuracies in percent with 95 % intervals."""
    lines = [
        "| | accuracy, % (95 %) | change to base, points | seeds | final nll | gradient norm | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy = f"{100 * row['mean']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        rest = ["", "", "", "", ""]
        if "difference" in row:
            change = row["difference"]
            rest = [
                f"{100 * change['mean']:+.1f} ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})",
                str(row["seeds"]),
                f"{row['final_nll']:.2f}",
                f"{row['mean_grad_norm']:.2f}",
                f"{row['cost']['train_seconds']:.0f} s",
            ]
        lines.append(f"| {row['name']} | {accuracy} | {' | '.join(rest)} |")
    return "\n".join(lines) + "\n"
