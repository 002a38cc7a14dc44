"""Which figures a run has data for, drawn for the page and saved as PNG."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from offsft.records import Source
from offsft.report import figures, numbers
from offsft.report.run_data import Rewrites
from offsft.report.svg import SETTINGS, to_png, to_svg
from offsft.storage import StoragePath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure on the page: for wide and for narrow screens, and the path of its PNG relative to the page."""

    wide: Markup
    narrow: Markup
    png: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to draw a figure in a given width (inches), and what it shows, for those who cannot see it."""

    draw: "Callable[[float], Figure]"
    description: str


def draw(
    run: StoragePath, summary: dict[str, Any], rewrites: Rewrites | None, metrics: dict[str, np.ndarray]
) -> dict[str, Drawing]:
    """Every figure that there is data for, by name; also saved as `figures/<name>.png` of the run's folder."""
    from matplotlib import rc_context

    plans = {
        "shares": _shares(summary.get("rewrite") or _counted(rewrites)),
        "gap": _gap(rewrites),
        "weights": _weights((summary.get("gap") or {}).get("before")),
        "outcomes": _outcomes(rewrites),
        "training": _training(metrics),
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


def _counted(rewrites: Rewrites | None) -> dict[str, int] | None:
    """Rewrites by source, while the stage has not finished and counted them itself."""
    if rewrites is None:
        return None
    return {str(source): int((rewrites.sources == source).sum()) for source in Source}


def _shares(counts: dict[str, int] | None) -> _Plan | None:
    if not counts or not any(counts[source] for source in Source):
        return None
    listed = ", ".join(f"{source} {numbers.count(counts[source])}" for source in Source)
    return _Plan(lambda width: figures.shares(counts, width), f"Problems by source: {listed}.")


def _gap(rewrites: Rewrites | None) -> _Plan | None:
    if rewrites is None:
        return None
    both = (rewrites.expert_logprobs, rewrites.kept_logprobs)
    if not all(np.isfinite(logprobs).any() for logprobs in both):
        return None
    expert, kept = (numbers.nats(float(np.nanmedian(logprobs))) for logprobs in both)
    return _Plan(
        lambda width: figures.gap(rewrites, width),
        "Histograms of the mean token log-probability of expert solutions and of kept responses, in nats;"
        f" medians {expert} and {kept}.",
    )


def _weights(before: dict[str, Any] | None) -> _Plan | None:
    if not before:
        return None
    expert, kept = (before[which]["all"]["ess_share"] for which in ("expert", "kept"))
    if expert is None or kept is None:
        return None
    return _Plan(
        lambda width: figures.weights(before, width),
        "Histograms of the log importance weights of the tokens of expert solutions and of kept responses;"
        f" effective tokens {numbers.percent(expert)} and {numbers.percent(kept)}.",
    )


def _outcomes(rewrites: Rewrites | None) -> _Plan | None:
    if rewrites is None or not rewrites.outcomes:
        return None
    listed = ", ".join(f"{stage} {outcome} {n}" for (stage, outcome), n in rewrites.outcomes.most_common())
    return _Plan(lambda width: figures.outcomes(rewrites.outcomes, width), f"Samples by stage and outcome: {listed}.")


def _training(metrics: dict[str, np.ndarray]) -> _Plan | None:
    if not metrics:
        return None
    return _Plan(
        lambda width: figures.training(metrics, width),
        "Loss, negative log-likelihood, gradient norm and learning rate over the optimizer steps.",
    )


def _accuracy(evaluate: dict[str, Any] | None) -> _Plan | None:
    if evaluate is None:
        return None
    listed = ", ".join(
        f"{model} {numbers.percent(evaluate[model]['accuracy'], 1)}"
        for model in ("base", "trained")
        if model in evaluate
    )
    return _Plan(lambda width: figures.accuracy(evaluate, width), f"Accuracy on held-out problems: {listed}.")
