"""The probe's results for people: the table on the screen, probe.md, and the setting to paste."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from rich import box
from rich.table import Table

from offsft.config.objective import Objective
from offsft.config.probe import own_settings
from offsft.evaluate.statistics import ScoreEstimate
from offsft.probe.figures import NEAR_DETERMINED, NEAR_ZERO, OWN, TRAINED, WRITTEN_BY_EXPERT, Trial
from offsft.probe.rule import Decision

_COLUMNS = (
    "objective",
    "held-out nll",
    "change (95 %)",
    "own text",
    "expert's",
    "gradient norm",
    "weight",
    "ESS",
    f"weight < {NEAR_ZERO}",
    "gradient kept",
    "s/step",
)
_ON_SCREEN = ("objective", "change", "95 %", "own\ntext", "expert's", "grad.\nnorm", "ESS", "grad.\nkept", "s/step")
"""What fits into a terminal of 80 characters; probe.md has all."""
_EMPTY = "-"


def setting_of(objective: Objective, current: Objective) -> str:
    """The `key=value` that makes the objective a recipe's, as it is typed in a shell.

    The kind alone would leave the settings of another kind in the recipe, which are then refused.
    """
    settings = own_settings(objective)
    if not settings and not own_settings(current):
        return f"train.objective.kind={objective.kind}"
    entries = ", ".join(
        [f"kind: {objective.kind}", *(f"{key}: {json.dumps(value)}" for key, value in settings.items())]
    )
    return f"'train.objective={{{entries}}}'"


def cells(trial: Trial) -> list[str]:
    """A trial's row of the table."""
    trained, weights = trial.texts[TRAINED], trial.weights
    return [
        trial.name,
        f"{trained.before:.3f} to {trained.after:.3f}",
        _interval(trained.change),
        _change(trial, OWN),
        _change(trial, WRITTEN_BY_EXPERT),
        f"{trial.grad_norm:.3g} ± {trial.grad_norm_spread:.0%}",
        f"{trial.mean_weight:.2f}",
        _share(trial.ess_share),
        _share(weights.near_zero_share if weights else None),
        _share(weights.signal_share if weights else None),
        f"{trial.step_s:.2f}",
    ]


def terminal_table(trials: Sequence[Trial]) -> Table:
    """The table for the screen; changes are of held-out negative log-likelihoods, nats per token."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(_ON_SCREEN[0])
    for column in _ON_SCREEN[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for trial in trials:
        change = trial.texts[TRAINED].change
        table.add_row(
            trial.name,
            f"{change.mean:+.3f}",
            f"{change.low:+.3f}, {change.high:+.3f}",
            _change(trial, OWN),
            _change(trial, WRITTEN_BY_EXPERT),
            f"{trial.grad_norm:.3g}",
            _share(trial.ess_share),
            _share(trial.weights.signal_share if trial.weights else None),
            f"{trial.step_s:.2f}",
        )
    return table


def markdown(trials: Sequence[Trial], decision: Decision, texts: Mapping[str, Mapping[str, Any]], setting: str) -> str:
    """probe.md: the recommendation, the table, the loss curves, and how determined the text is."""
    curves = [[trial.name, *(f"{value:.3f}" for value in trial.nll)] for trial in trials]
    bins = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(texts[TRAINED]["histogram"]["edges"])]
    shares = [[name, *(f"{share:.1%}" for share in text["histogram"]["shares"])] for name, text in texts.items()]
    parts = [
        "# Which objective?",
        f"{_sentence(decision.summary)}\n\n    {setting}",
        "\n".join(f"- {reason}" for reason in decision.reasons),
        "## Objectives",
        _rows(_COLUMNS, [cells(trial) for trial in trials]),
        "Negative log-likelihoods (nll) are in nats per token, as means over responses that were not trained on; `own text` and"
        " `expert's` are the changes on responses that the model wrote itself and on the expert's solutions. `weight` and `ESS`"
        " are means over the steps; the two columns behind them are of the held-out responses before the first step:"
        " `gradient kept` is the share of sft's gradient that the weights leave.",
        "## The training rows' nll at each step",
        _rows(["objective", *(str(step) for step in range(1, len(curves[0])))], curves),
        f"## Held-out tokens by their probability before training ({texts[TRAINED]['near_determined_share']:.0%} above"
        f" {NEAR_DETERMINED} in what is trained on)",
        _rows(["text", *bins], shares),
    ]
    return "\n\n".join(parts) + "\n"


def as_json(trial: Trial) -> dict[str, Any]:
    """A trial as it stands in probe.json."""
    return {"name": trial.name} | asdict(trial) | {"objective": trial.objective.model_dump(mode="json")}


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _interval(found: ScoreEstimate) -> str:
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _change(trial: Trial, text: str) -> str:
    return f"{trial.texts[text].change.mean:+.3f}" if text in trial.texts else _EMPTY


def _share(value: float | None) -> str:
    return _EMPTY if value is None else f"{value:.0%}"
