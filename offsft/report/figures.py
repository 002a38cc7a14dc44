"""The report's figures: each function draws one into a new matplotlib figure of the given width.

Colours are those of `offsft.report.palette`; callers draw under `offsft.report.svg.SETTINGS`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from offsft.records import UNSOLVED, Outcome
from offsft.report import numbers
from offsft.report.palette import ink_on, light, source_colors
from offsft.report.run_data import Rewrites

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE_IN, NARROW_IN = 7.6, 3.7

ALL = "all"
"""The name in held_out.jsonl of all sources together."""

_MAX_CURVE_POINTS = 600


def shares(counts: dict[str, int], width_in: float) -> "Figure":
    """Problems by the source of their kept response, in the order of `counts`: one stacked bar."""
    figure, axes = _figure(width_in, 1.15 if width_in == WIDE_IN else 1.35)
    total = sum(counts.values())
    colors = source_colors(list(counts))
    left = 0.0
    for source in counts:
        share = counts[source] / total
        axes.barh(0, share, left=left, height=0.9, color=light(colors[source]), edgecolor=light("paper"), linewidth=1.2)
        if _fits(numbers.count(counts[source]), share * width_in):
            axes.text(
                left + share / 2,
                0,
                numbers.count(counts[source]),
                ha="center",
                va="center_baseline",
                color=ink_on(colors[source]),
                fontsize=11,
                fontweight="bold",
            )
        left += share
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    axes.axis("off")
    _legend(figure, [(colors[source], f"{source} {numbers.percent(counts[source] / total)}") for source in counts])
    return figure


def gap(rewrites: Rewrites, width_in: float) -> "Figure":
    """Mean token log-prob of each problem's expert solution and kept response: two histograms with a shared axis."""
    figure, (above, below) = _figure(width_in, 3.5 if width_in == WIDE_IN else 3.9, rows=2)
    expert, kept = rewrites.expert_logprobs, rewrites.kept_logprobs
    finite = np.concatenate([expert[np.isfinite(expert)], kept[np.isfinite(kept)]])
    # The few lowest values would squeeze the rest into a corner, so they are counted in the first bin.
    low, high = float(np.quantile(finite, 0.005)), float(finite.max())
    bins = np.linspace(low - 1e-6, high + 1e-6, 41 if width_in == WIDE_IN else 29)
    above.hist(np.clip(expert, low, high), bins=bins, histtype="stepfilled", color=light("expert"))
    colors = source_colors(rewrites.names)
    measured = [source for source in rewrites.names if source != UNSOLVED]
    by_source = [np.clip(kept[rewrites.sources == source], low, high) for source in measured]
    below.hist(
        by_source, bins=bins, histtype="stepfilled", stacked=True, color=[light(colors[source]) for source in measured]
    )
    above.set_title("expert solutions", loc="left", color=light("ink"))
    below.set_title("kept responses, by source", loc="left", color=light("ink"))
    above.margins(y=0.22)
    before, after = float(np.nanmedian(expert)), float(np.nanmedian(kept))
    _median(above, before, (low, high), f"median {numbers.nats(before)}")
    _median(below, after, (low, high), f"median {numbers.nats(after)} ({numbers.nats(after - before, sign=True)})")
    for axes in (above, below):
        axes.set_ylabel("problems")
        axes.yaxis.set_major_locator(_locator(4, integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: numbers.count(value))
        _style(axes)
    below.set_xlabel("mean log-probability of a token under the policy, nats (closer to 0: more its own)")
    if width_in != WIDE_IN:
        below.set_xlabel("mean log-probability of a token, nats")
    _legend(figure, [(colors[source], source) for source in measured])
    return figure


def weights(before: dict[str, Any], width_in: float) -> "Figure":
    """Histogram of the tokens' log importance weights, in expert solutions and in kept responses, as token shares."""
    from offsft.gap import EDGES

    figure, axes = _figure(width_in, 2.5 if width_in == WIDE_IN else 2.9)
    entries = []
    for which, color, name in (("expert", "expert", "expert solutions"), ("kept", "stage_1", "kept responses")):
        found = before[which]["all"]
        share = np.array(found["log_ratio_counts"]) / max(1, found["tokens"])
        axes.stairs(share, EDGES, fill=True, color=light(color), alpha=0.45)
        axes.stairs(share, EDGES, color=light(color), linewidth=1.3)
        entries.append((color, f"{name}: {numbers.percent(found['ess_share'])} effective tokens"))
    axes.axvline(0, color=light("ink"), linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: numbers.percent(value, 0 if value >= 0.01 else 1))
    axes.set_ylabel("tokens")
    axes.set_xlabel("log importance weight of a token, nats (0: as likely as when it was written)")
    _style(axes)
    _legend(figure, entries, columns=2 if width_in == WIDE_IN else 1)
    return figure


def training(metrics: dict[str, np.ndarray], width_in: float) -> "Figure":
    """Curves over the steps: objective and negative log-likelihood large, gradient norm and learning rate small."""
    from matplotlib.figure import Figure

    wide = width_in == WIDE_IN
    figure = Figure(figsize=(width_in, 3.3 if wide else 5.6), layout="constrained")
    if wide:
        grid = figure.add_gridspec(2, 2, width_ratios=(2.2, 1))
        cells = [grid[0, 0], grid[1, 0], grid[0, 1], grid[1, 1]]
    else:
        grid = figure.add_gridspec(4, 1, height_ratios=(1.5, 1.5, 1, 1))
        cells = [grid[row, 0] for row in range(4)]
    curves = (
        ("loss/objective", "loss (objective), a token", "ink"),
        ("loss/nll", "negative log-likelihood, nats per token", "trained"),
        ("optim/grad_norm", "gradient norm", "muted"),
        ("optim/learning_rate", "learning rate", "muted"),
    )
    steps = metrics["step"]
    for cell, (name, title, color) in zip(cells, curves, strict=True):
        axes = figure.add_subplot(cell)
        _curve(axes, steps, metrics.get(name), light(color))
        axes.set_title(title, loc="left", color=light("ink"))
        _style(axes)
        if cell.is_last_row():
            axes.set_xlabel("optimizer step")
    return figure


def held_out(measured: dict[str, np.ndarray], sources: Sequence[str], width_in: float) -> "Figure":
    """Negative log-likelihood of the held-out rows over the steps, a curve for each source; `measured` has all by name."""
    figure, axes = _figure(width_in, 2.4 if width_in == WIDE_IN else 2.8)
    colors = {**source_colors([source for source in sources if source in measured]), ALL: "ink"}
    shown = [source for source in (*sources, ALL) if source in measured]
    for source in shown:
        _curve(axes, measured["step"], measured[source], light(colors[source]))
    steps = measured["step"]
    axes.set_xlim(-0.02 * steps[-1] - 0.1, steps[-1] * 1.02 + 0.1)  # with the measurement before the first step
    axes.set_ylabel("nats per token")
    axes.set_xlabel("optimizer step")
    _style(axes)
    _legend(figure, [(colors[source], source) for source in shown], columns=6 if width_in == WIDE_IN else 3)
    return figure


def accuracy(evaluate: dict[str, Any], width_in: float) -> "Figure":
    """Share of correct held-out answers, base against trained, with ± one standard error."""
    models = [model for model in ("base", "trained") if model in evaluate]
    figure, axes = _figure(width_in, 0.75 + 0.5 * len(models))
    for row, model in enumerate(models):
        score = evaluate[model]
        share, error = score["accuracy"], score["stderr"] or 0.0
        axes.barh(row, share, height=0.62, color=light(model))
        if error:
            axes.errorbar(share, row, xerr=error, color=light("ink"), capsize=3.5, linewidth=1.1, capthick=1.1)
        text = numbers.percent(share, 1) + (f" ± {100 * error:.1f}" if error else "")
        axes.annotate(
            text,
            (share + error, row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center_baseline",
            color=light("ink"),
            fontsize=10,
            fontweight="bold",
        )
    top = max(evaluate[model]["accuracy"] + (evaluate[model]["stderr"] or 0) for model in models)
    axes.set_yticks(range(len(models)), models, fontsize=10)
    axes.set_xlim(0, max(0.05, top * (1.28 if width_in == WIDE_IN else 1.62)))
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: numbers.percent(value) if value <= 1 else "")
    axes.xaxis.set_major_locator(_locator(5))
    axes.set_xlabel("correct answers to held-out problems")
    _style(axes, grid="x")
    axes.tick_params(axis="y", labelcolor=light("ink"))
    return figure


def outcomes(counts: Counter[tuple[str, str]], names: Sequence[str], width_in: float) -> "Figure":
    """Outcomes of each stage's samples, in the order of `names`: one bar per stage, each 100 %."""
    stages = [stage for stage in names if any(name == stage for name, _ in counts)]
    kinds = [kind for kind in Outcome if any(counts[(stage, kind)] for stage in stages)]
    figure, axes = _figure(width_in, 0.95 + 0.5 * len(stages) + (0 if width_in == WIDE_IN else 0.25))
    totals = {stage: sum(counts[(stage, kind)] for kind in kinds) for stage in stages}
    for row, stage in enumerate(stages):
        left = 0.0
        for kind in kinds:
            share = counts[(stage, kind)] / totals[stage]
            axes.barh(row, share, left=left, height=0.66, color=light(kind), edgecolor=light("paper"), linewidth=0.8)
            if _fits(numbers.count(counts[(stage, kind)]), share * width_in):
                axes.text(
                    left + share / 2,
                    row,
                    numbers.count(counts[(stage, kind)]),
                    ha="center",
                    va="center_baseline",
                    color=ink_on(kind),
                )
            left += share
    axes.set_yticks(range(len(stages)), [f"{stage}\n{numbers.count(totals[stage])} samples" for stage in stages])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: numbers.percent(value))
    _style(axes, grid=None)
    axes.tick_params(axis="y", labelcolor=light("ink"))
    _legend(figure, [(kind, kind.replace("_", " ")) for kind in kinds], columns=8 if width_in == WIDE_IN else 3)
    return figure


def _figure(width_in: float, height_in: float, *, rows: int = 1) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    return figure, figure.subplots(rows, 1, sharex=True, sharey=True)


def _fits(text: str, width_in: float) -> bool:
    """Whether a number fits on a bar of this width, with some room around it."""
    return width_in > 0.2 + 0.1 * len(text)


def _style(axes: "Axes", grid: str | None = "y") -> None:
    axes.tick_params(colors=light("muted"))
    axes.xaxis.label.set_color(light("muted"))
    axes.yaxis.label.set_color(light("muted"))
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(light("muted"))
    if grid:
        axes.grid(axis=grid, color=light("grid"), linewidth=0.6)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def _legend(figure: "Figure", entries: Iterable[tuple[str, str]], columns: int = 3) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=light(color), label=label) for color, label in entries]
    # Legends fill by columns; with so few rows this reads well.
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, labelcolor=light("ink"), borderaxespad=0.2)


def _median(axes: "Axes", median: float, limits: tuple[float, float], text: str) -> None:
    axes.axvline(median, color=light("ink"), linewidth=1.1, linestyle=(0, (4, 2)))
    left_half = median < sum(limits) / 2
    axes.annotate(
        text,
        (median, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(5 if left_half else -5, -3),
        textcoords="offset points",
        ha="left" if left_half else "right",
        va="top",
        color=light("ink"),
        fontweight="bold",
    )


def _curve(axes: "Axes", steps: np.ndarray, values: np.ndarray | None, color: str) -> None:
    if values is None or not np.isfinite(values).any():
        axes.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=axes.transAxes, color=light("muted"))
        return
    stride = max(1, len(steps) // _MAX_CURVE_POINTS)
    marker = "o" if len(steps) <= 40 else ""
    axes.plot(steps[::stride], values[::stride], color=color, linewidth=1.5, marker=marker, markersize=3)
    axes.set_xlim(min(0, steps[0] - 1), steps[-1] * 1.02 + 0.1)
    axes.xaxis.set_major_locator(_locator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: numbers.count(value))
    axes.yaxis.set_major_locator(_locator(4))
    axes.yaxis.set_major_formatter(lambda value, _: numbers.decimal(value))
    axes.margins(y=0.12)


def _locator(most: int, *, integer: bool = False) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=most, integer=integer, min_n_ticks=1, steps=(1, 2, 2.5, 5, 10))
