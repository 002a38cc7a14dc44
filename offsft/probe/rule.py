"""The rule that picks an objective from the probe's figures, and the sentences that say why.

The rule is deterministic, and docs/objectives.md has it in words. What decides is how far the negative log-likelihood of
responses that were not trained on fell. The weights do not decide; they explain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from offsft.config import objective_name
from offsft.config.objective import Objective, Sft
from offsft.evaluate.statistics import ScoreEstimate, paired_difference
from offsft.probe.figures import NEAR_DETERMINED, NEAR_ZERO, OWN, TRAINED, Trial, Weights

LEAST_ROWS = 8
"""Fewest held-out responses whose interval is worth something: the bootstrap's are too narrow for a handful."""
NEGLIGIBLE = 0.1
"""A shortfall below this share of the best gain decides nothing. Paired by response even a hundredth can be certain, and
a few steps with one seed and one learning rate do not carry that far."""
PRICE = 0.5
"""An objective that makes the model's own text less likely by more than this share of what it gains pays too much."""
WEAK_SIGNAL = 1 / 3
"""What dft keeps of sft's gradient on a text whose probabilities are spread evenly over 0 to 1. With less the text is
polarised: its tokens are known already, or unlikely and all but ignored."""
MOST = 0.5
"""From this share on, a text's negative log-likelihood lies mostly on its unlikely tokens: they are what is to be learnt."""


class Verdict(StrEnum):
    """How far the figures decide."""

    BEST = "best"
    """One objective learns more than every other."""
    TIED = "tied"
    """Several learn as much as the best, as far as these figures go."""
    NOTHING_LEARNT = "nothing_learnt"
    """No objective lowers the held-out negative log-likelihood beyond doubt."""
    TOO_FEW = "too_few"
    """There are too few held-out responses."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The objective to train with, and why."""

    objective: Objective
    verdict: Verdict
    tied: list[str]
    """Names of the objectives that cannot be told from the best, itself included; empty where nothing is compared."""
    summary: str
    """The recommendation in a sentence."""
    reasons: list[str]
    """What the weights do to this text, sentence by sentence."""


def decide(trials: Sequence[Trial], current: Objective, text: Mapping[str, Any]) -> Decision:
    """Pick an objective; `current` is the recipe's, `text` the held-out text as `describe_text` has it.

    1. With fewer than LEAST_ROWS held-out responses nothing is decided, and the recipe's objective stays.
    2. An objective learns if the 95 % interval of its change lies below 0. If none does, the recipe's stays.
    3. Of those that learn, one whose price in the model's own text is above PRICE is left out, unless all are.
    4. The best has the lowest mean change. Another is tied with it unless the interval of their paired difference lies
       above 0, and its shortfall is at least NEGLIGIBLE of the best's gain.
    5. Of tied ones the recipe's objective is taken, else sft, which is the simplest, else the best.
    """
    reasons = [_text_sentence(text), *_weight_sentences(trials, text)]
    rows = trials[0].texts[TRAINED].rows
    if rows < LEAST_ROWS:
        said = (
            f"{rows} held-out responses are too few to decide by ({LEAST_ROWS} are needed); keep {objective_name(current)},"
            " or probe more problems"
        )
        return Decision(current, Verdict.TOO_FEW, [], said, reasons)
    learners = [trial for trial in trials if change_of(trial).high < 0]
    if not learners:
        return Decision(current, Verdict.NOTHING_LEARNT, [], _nothing_learnt(trials, current), reasons)
    candidates = [trial for trial in learners if not _pays_too_much(trial)] or learners
    reasons += [_price_sentence(trial) for trial in learners if _pays_too_much(trial)]
    best = min(candidates, key=lambda trial: change_of(trial).mean)
    tied = [trial for trial in candidates if trial is best or _is_tied(best, trial)]
    if len(tied) == 1:
        return Decision(best.objective, Verdict.BEST, [best.name], _best_sentence(best, trials), reasons)
    chosen = _simplest(tied, current, best)
    names = [trial.name for trial in tied]
    return Decision(chosen.objective, Verdict.TIED, names, _tied_sentence(chosen, tied, current), reasons)


def change_of(trial: Trial) -> ScoreEstimate:
    """The figure that decides: the change on held-out responses of the kind that is trained on."""
    return trial.texts[TRAINED].change


def difference(best: Trial, other: Trial) -> ScoreEstimate:
    """The other's change less the best's, paired by response: above 0 is worse."""
    return paired_difference(best.texts[TRAINED].by_row, other.texts[TRAINED].by_row)


def _is_tied(best: Trial, other: Trial) -> bool:
    found = difference(best, other)
    return found.low <= 0 or found.mean < NEGLIGIBLE * -change_of(best).mean


def _pays_too_much(trial: Trial) -> bool:
    own = trial.texts.get(OWN)
    return own is not None and own.change.low > 0 and own.change.mean > PRICE * -change_of(trial).mean


def _simplest(tied: Sequence[Trial], current: Objective, best: Trial) -> Trial:
    by_current = [trial for trial in tied if trial.objective == current]
    by_simplicity = [trial for trial in tied if isinstance(trial.objective, Sft)]
    return (by_current or by_simplicity or [best])[0]


def _best_sentence(best: Trial, trials: Sequence[Trial]) -> str:
    others = sorted((trial for trial in trials if trial is not best), key=lambda trial: change_of(trial).mean)
    told = ", ".join(f"{trial.name} {_signed(difference(best, trial))}" for trial in others)
    return (
        f"take {best.name}: over {len(best.nll)} steps with it the negative log-likelihood of {best.texts[TRAINED].rows} held-out"
        f" responses changes by {_signed(change_of(best))} nats per token; compared with it, response by response: {told}"
    )


def _tied_sentence(chosen: Trial, tied: Sequence[Trial], current: Objective) -> str:
    why = "which the recipe has" if chosen.objective == current else "the simplest"
    if chosen.objective != current and not isinstance(chosen.objective, Sft):
        why = "the lowest of them"
    told = ", ".join(f"{trial.name} {_signed(change_of(trial))}" for trial in tied)
    return (
        f"the figures do not decide between {_listed([trial.name for trial in tied])}: the changes of the held-out negative"
        f" log-likelihood, nats per token, are {told}; take {chosen.name}, {why}"
    )


def _nothing_learnt(trials: Sequence[Trial], current: Objective) -> str:
    rise = any(change_of(trial).low > 0 for trial in trials)
    remedy = "lower train.learning_rate" if rise else "raise probe.steps or train.learning_rate"
    told = ", ".join(f"{trial.name} {_signed(change_of(trial))}" for trial in trials)
    return (
        "the figures do not decide: no objective lowers the held-out negative log-likelihood beyond doubt (changes in nats"
        f" per token: {told}); keep {objective_name(current)}, or {remedy} and probe again"
    )


def _text_sentence(text: Mapping[str, Any]) -> str:
    return (
        f"Held-out responses have {text['tokens_per_row']:.0f} tokens on average, of which {text['near_determined_share']:.0%}"
        f" are near-determined (p > {NEAR_DETERMINED}); the {text['unlikely_share']:.0%} with p < {NEAR_ZERO} hold"
        f" {text['unlikely_nll_share']:.0%} of the negative log-likelihood."
    )


def _weight_sentences(trials: Sequence[Trial], text: Mapping[str, Any]) -> list[str]:
    """How an objective's weights change sft's gradient on this text, for each whose weights are known."""
    return [
        f"{trial.name} weighs {trial.weights.near_zero_share:.0%} of the tokens below {NEAR_ZERO}, keeps"
        f" {trial.weights.signal_share:.0%} of sft's gradient, and spends {trial.weights.unlikely_share:.0%} of its own on the"
        f" tokens with p < {NEAR_ZERO}, where sft spends {text['unlikely_gradient_share']:.0%}"
        f"{_blindness(trial.weights, text)}."
        for trial in trials
        if trial.weights is not None and not isinstance(trial.objective, Sft)
    ]


def _blindness(weights: Weights, text: Mapping[str, Any]) -> str:
    """What it means where the text is to be learnt on its unlikely tokens, and the rest leaves little gradient."""
    blind = text["unlikely_nll_share"] >= MOST and weights.signal_share < WEAK_SIGNAL
    return ": little of it is left where there is most to learn" if blind else ""


def _price_sentence(trial: Trial) -> str:
    return (
        f"{trial.name} makes what the model wrote itself less likely, by {_signed(trial.texts[OWN].change)} nats per token:"
        f" more than {PRICE:.0%} of what it gains."
    )


def _signed(found: ScoreEstimate) -> str:
    return f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
