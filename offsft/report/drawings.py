"""Draws the figures that a run has data for, for the page and as PNG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from offsft.report import figures, numbers
from offsft.report.run_data import Rewrites
from offsft.report.svg import SETTINGS, to_png, to_svg
from offsft.storage.paths import StoragePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure on the page: its SVG for wide and for narrow screens, and the path of its PNG relative to the page."""

    wide: Markup
    narrow: Markup
    png: str


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A function that draws a figure in a given width (inches), and a description for screen readers."""

    draw: "Callable[[float], Figure]"
    description: str


def draw(
    run: StoragePath,
    summary: dict[str, Any],
    rewrites: Rewrites | None,
    metrics: dict[str, np.ndarray],
    held_out: dict[str, np.ndarray],
) -> dict[str, Drawing]:
    """All figures that there is data for, by name; each is also saved as `figures/<name>.png` in the run's folder."""
    from matplotlib import rc_context

    plans = {
        "shares": _shares((summary.get("rewrite") or {}).get("sources") or _count_sources(rewrites)),
        "gap": _gap(rewrites),
        "weights": _weights((summary.get("gap") or {}).get("before")),
        "outcomes": _outcomes(rewrites),
        "training": _training(metrics),
        "held_out": _held_out(held_out, rewrites.names if rewrites else []),
        "accuracy": _accuracy(summary.get("evaluate")),
    }
    drawings = {}
    with rc_context(SETTINGS):  # pyright: ignore[reportArgumentType]  # its keys are a closed literal type
        for name, plan in plans.items():
            if plan is None:
                continue
            wide, narrow = plan.draw(figures.WIDE_IN), plan.draw(figures.NARROW_IN)
            png = f"figures/{name}.png"
            to_png(wide, run / png)
            drawings[name] = Drawing(
                Markup(to_svg(wide, name, plan.description)),
                Markup(to_svg(narrow, f"{name}-narrow", plan.description)),
                png,
            )
    return drawings


def _count_sources(rewrites: Rewrites | None) -> dict[str, int] | None:
    """Number of rewrites by source, for a stage that has not yet finished and counted them itself."""
    if rewrites is None:
        return None
    return {source: int((rewrites.sources == source).sum()) for source in rewrites.names}


def _shares(counts: dict[str, int] | None) -> _Drawing | None:
    if not counts or not any(counts.values()):
        return None
    listed = ", ".join(f"{source} {numbers.count(count)}" for source, count in counts.items())
    return _Drawing(lambda width: figures.shares(counts, width), f"Problems by source: {listed}.")


def _gap(rewrites: Rewrites | None) -> _Drawing | None:
    if rewrites is None:
        return None
    both = (rewrites.expert_logprobs, rewrites.kept_logprobs)
    if not all(np.isfinite(logprobs).any() for logprobs in both):
        return None
    expert, kept = (numbers.nats(float(np.nanmedian(logprobs))) for logprobs in both)
    return _Drawing(
        lambda width: figures.gap(rewrites, width),
        "Histograms of the mean token log-probability of expert solutions and of kept responses, in nats;"
        f" medians {expert} and {kept}.",
    )


def _weights(before: dict[str, Any] | None) -> _Drawing | None:
    if not before:
        return None
    expert, kept = (before[which]["all"]["ess_share"] for which in ("expert", "kept"))
    if expert is None or kept is None:
        return None
    return _Drawing(
        lambda width: figures.weights(before, width),
        "Histograms of the log importance weights of the tokens of expert solutions and of kept responses;"
        f" effective tokens {numbers.percent(expert)} and {numbers.percent(kept)}.",
    )


def _outcomes(rewrites: Rewrites | None) -> _Drawing | None:
    if rewrites is None or not rewrites.outcomes:
        return None
    listed = ", ".join(f"{stage} {outcome} {n}" for (stage, outcome), n in rewrites.outcomes.most_common())
    return _Drawing(
        lambda width: figures.outcomes(rewrites.outcomes, rewrites.names, width),
        f"Samples by stage and outcome: {listed}.",
    )


def _training(metrics: dict[str, np.ndarray]) -> _Drawing | None:
    if not metrics:
        return None
    return _Drawing(
        lambda width: figures.training(metrics, width),
        "Loss, negative log-likelihood, gradient norm and learning rate over the optimizer steps.",
    )


def _held_out(lines: dict[str, np.ndarray], names: Sequence[str]) -> _Drawing | None:
    """The curves of held_out.jsonl; the sources in the order of `names`, then others."""
    prefix = "held_out/nll/"
    measured = {name.removeprefix(prefix): values for name, values in lines.items() if name.startswith(prefix)}
    if not measured or not np.isfinite(measured[figures.ALL]).any():
        return None
    sources = [*(name for name in names if name in measured), *sorted(measured.keys() - {figures.ALL, *names})]
    if len(sources) == 1:
        del measured[figures.ALL]  # the same curve
    first, last = (
        numbers.decimal(values[index]) for values in [next(reversed(measured.values()))] for index in (0, -1)
    )
    return _Drawing(
        lambda width: figures.held_out({"step": lines["step"], **measured}, sources, width),
        f"Negative log-likelihood of held-out rows over the optimizer steps, by source: {', '.join(sources)}; from"
        f" {first} to {last} nats per token.",
    )


def _accuracy(evaluate: dict[str, Any] | None) -> _Drawing | None:
    if evaluate is None:
        return None
    listed = ", ".join(
        f"{model} {numbers.percent(evaluate[model]['accuracy'], 1)}"
        for model in ("base", "trained")
        if model in evaluate
    )
    return _Drawing(lambda width: figures.accuracy(evaluate, width), f"Accuracy on held-out problems: {listed}.")
