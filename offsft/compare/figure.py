"""The comparison in one figure: accuracies with intervals, losses and gradient norms side by side, and cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from offsft.compare.table import ArmResult
from offsft.report.palette import light
from offsft.report.svg import SETTINGS, to_png
from offsft.storage.paths import StoragePath

_SIZE_IN = (10.0, 6.4)


def write_figure(rows: Sequence[dict[str, Any]], measured: Sequence[ArmResult], path: StoragePath) -> None:
    """Save the figure as PNG."""
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):  # pyright: ignore[reportArgumentType]  # its keys are a closed literal type
        figure = Figure(figsize=_SIZE_IN, layout="constrained")
        accuracy, nll, norm, cost = figure.subplots(2, 2).flat
        colors = [light("base"), *(colormaps["tab10"](i % 10) for i in range(len(rows) - 1))]
        _accuracies(accuracy, rows, colors)
        for axes, metric, title in (
            (nll, "loss/nll", "negative log-likelihood, nats per token"),
            (norm, "optim/grad_norm", "gradient norm"),
        ):
            for row, color in zip(measured[1:], colors[1:], strict=True):
                _curve(axes, row, metric, color)
            if metric == "optim/grad_norm":
                axes.set_yscale("log")
            axes.set_title(title, loc="left")
            axes.set_xlabel("optimizer step")
        _costs(cost, rows, colors)
        to_png(figure, path)


def _accuracies(axes: Any, rows: Sequence[dict[str, Any]], colors: Sequence[Any]) -> None:
    for place, (row, color) in enumerate(zip(rows, colors, strict=True)):
        error = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.barh(place, row["mean"], xerr=error, color=color, height=0.65, capsize=3, error_kw={"linewidth": 1})
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set_title("accuracy on held-out problems, 95 % interval", loc="left")


def _curve(axes: Any, row: ArmResult, metric: str, color: Any) -> None:
    """Plot the mean over the seeds, and the band between their minimum and maximum."""
    values = np.array([[line[metric] for line in run] for run in row.metrics])
    steps = [line["step"] for line in row.metrics[0]]
    axes.plot(steps, values.mean(axis=0), color=color, linewidth=1.5, label=row.name)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0)


def _costs(axes: Any, rows: Sequence[dict[str, Any]], colors: Sequence[Any]) -> None:
    for place, (row, color) in enumerate(zip(rows[1:], colors[1:], strict=True)):
        spent = row["cost"]
        axes.barh(place, spent["rewrite_seconds"] / 60, color=light("muted"), height=0.65)
        axes.barh(place, spent["train_seconds"] / 60, left=spent["rewrite_seconds"] / 60, color=color, height=0.65)
    axes.set_yticks(range(len(rows) - 1), [row["name"] for row in rows[1:]])
    axes.invert_yaxis()
    axes.set_title("minutes of rewriting (grey) and training", loc="left")
