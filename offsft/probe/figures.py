"""What the short training of one objective shows: held-out likelihoods, loss and gradient, weights, time."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offsft.config import RewriteConfig, objective_name
from offsft.config.objective import Dft, Objective, Power, Prift, Sft
from offsft.config.stages import ExpertStage, TeacherStage
from offsft.evaluate.statistics import ScoreEstimate, estimate
from offsft.storage.paths import StoragePath, parquet_files, read_json_lines, read_table
from offsft.storage.run_folder import RunFolder
from offsft.train.step_log import ALL, NLL

RESAMPLES = 10_000
NEAR_DETERMINED = 0.9
"""A token whose probability is above this is nearly determined by what stands before it: little is left to learn."""
NEAR_ZERO = 0.1
"""A token whose probability is below this is unlikely, and one whose weight is below this hardly counts."""
_BINS = 10

TRAINED, OWN, WRITTEN_BY_EXPERT = "trained", "own", "expert"
"""The held-out texts: responses of the kind that is trained on, those that the model wrote itself, expert solutions."""
Rows = Mapping[str, np.ndarray]
"""The log-probs (nats) of each response's tokens, by id."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What an objective's weights w(p) do to a text, under the policy before training; shares of 1."""

    near_zero_share: float
    """Share of the tokens whose weight is below NEAR_ZERO."""
    signal_share: float
    """Sum of w (1 - p) over the sum of 1 - p: what is left of the gradient that sft has at the tokens' own logits."""
    unlikely_share: float
    """Share of w (1 - p) that falls to tokens with p below NEAR_ZERO: where the gradient goes, whatever its length."""


@dataclass(frozen=True, slots=True)
class TextChange:
    """The negative log-likelihood of one held-out text, nats per token, as a mean over responses."""

    rows: int
    before: float
    after: float
    change: ScoreEstimate
    """After less before, with the 95 % interval over responses: below 0 is learnt."""
    by_row: dict[str, float]
    """The change of each response, by id."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One objective's short training."""

    objective: Objective
    texts: dict[str, TextChange]
    """By the text's name; a text without rows is missing."""
    nll: list[float]
    """The training rows' negative log-likelihood at each step, nats per token: the same rows for every objective."""
    loss: list[float]
    """The objective itself at each step."""
    held_out: list[tuple[int, float | None]]
    """Steps done, and the held-out negative log-likelihood then, nats per token over all tokens."""
    grad_norm: float
    grad_norm_spread: float
    """Standard deviation over the steps, as a share of the mean."""
    mean_weight: float
    ess_share: float | None
    """Effective sample size of the tokens' weights as a share of the tokens, mean over the steps."""
    weights: Weights | None
    """None where the weight is not a function of the token's probability alone."""
    step_s: float
    """Median time of a step, seconds."""
    seconds: float

    @property
    def name(self) -> str:
        return objective_name(self.objective)


def read_trial(folder: RunFolder, objective: Objective, responses: str, own_sources: Sequence[str]) -> Trial:
    """The figures of a finished training, whose gap sample is all its held-out rows."""
    before, after = (read_texts(folder.gap / "trained" / when, responses, own_sources) for when in ("before", "after"))
    steps = read_json_lines(folder.path / "metrics.jsonl")
    norms = [line["optim/grad_norm"] for line in steps]
    shares = [line["weight/ess_share"] for line in steps if line["weight/ess_share"] is not None]
    return Trial(
        objective,
        {name: text_change(rows, after[name]) for name, rows in before.items()},
        nll=[line["loss/nll"] for line in steps],
        loss=[line["loss/objective"] for line in steps],
        held_out=[(line["step"], line[f"{NLL}{ALL}"]) for line in read_json_lines(folder.path / "held_out.jsonl")],
        grad_norm=statistics.fmean(norms),
        grad_norm_spread=statistics.pstdev(norms) / (statistics.fmean(norms) or 1.0),
        mean_weight=statistics.fmean(line["weight/mean"] for line in steps),
        ess_share=statistics.fmean(shares) if shares else None,
        weights=weights_of(objective, probabilities(before[TRAINED])),
        step_s=statistics.median(line["time/step_s"] for line in steps),
        seconds=(folder.result("train") or {})["seconds"],
    )


def read_texts(scores: StoragePath, responses: str, own_sources: Sequence[str]) -> dict[str, Rows]:
    """The held-out texts' log-probs, as the training scored them, by the text's name; empty texts are left out."""
    kinds = {kind: _read_scores(scores / kind) for kind in ("kept", "expert")}
    texts = {
        TRAINED: kinds[responses],
        OWN: {key: each for key, each in kinds["kept"].items() if each[0] in own_sources},
        WRITTEN_BY_EXPERT: kinds["expert"],
    }
    found = {name: {key: logprobs for key, (_, logprobs) in rows.items()} for name, rows in texts.items()}
    return {name: rows for name, rows in found.items() if rows}


def _read_scores(folder: StoragePath) -> dict[str, tuple[str, np.ndarray]]:
    found: dict[str, tuple[str, np.ndarray]] = {}
    for path in parquet_files(folder):
        table = read_table(path, ["id", "source", "logprobs"])
        logprobs = table["logprobs"].to_numpy(zero_copy_only=False)
        for key, source, each in zip(table["id"].to_pylist(), table["source"].to_pylist(), logprobs, strict=True):
            if len(each):
                found[key] = (source, np.asarray(each, dtype=np.float64))
    return found


def text_change(before: Rows, after: Rows) -> TextChange:
    """The change of each response's mean negative log-likelihood, and its mean over the responses."""
    keys = sorted(before)
    first, last = ([-float(rows[key].mean()) for key in keys] for rows in (before, after))
    changes = [late - early for early, late in zip(first, last, strict=True)]
    return TextChange(
        len(keys),
        statistics.fmean(first),
        statistics.fmean(last),
        estimate(changes, RESAMPLES),
        dict(zip(keys, changes, strict=True)),
    )


def probabilities(rows: Rows) -> np.ndarray:
    """The probability of every token of a text, `(T)`."""
    return np.exp(np.concatenate(list(rows.values())))


def weights_of(objective: Objective, p_T: np.ndarray) -> Weights | None:
    """What an objective's weights do to tokens of these probabilities, as they are before the first step."""
    match objective:
        case Sft():
            weight_T = np.ones_like(p_T)
        case Dft() | Prift():  # before the first step the policy in training is the policy before training
            weight_T = p_T
        case Power():
            weight_T = p_T**objective.exponent
        case _:
            return None
    gradient_T = weight_T * (1 - p_T)
    return Weights(
        float((weight_T < NEAR_ZERO).mean()),
        _share(gradient_T, 1 - p_T),
        _share(gradient_T[p_T < NEAR_ZERO], gradient_T),
    )


def describe_text(rows: Rows) -> dict[str, Any]:
    """How determined a text is under the policy before training: shares of its tokens, by their probability."""
    p_T, nll_T = probabilities(rows), -np.concatenate(list(rows.values()))
    unlikely_T = p_T < NEAR_ZERO
    counts, edges = np.histogram(p_T, bins=_BINS, range=(0, 1))
    return {
        "rows": len(rows),
        "tokens": len(p_T),
        "tokens_per_row": len(p_T) / len(rows),
        "nll": float(nll_T.mean()),
        "near_determined_share": float((p_T > NEAR_DETERMINED).mean()),
        "unlikely_share": float(unlikely_T.mean()),
        "unlikely_nll_share": _share(nll_T[unlikely_T], nll_T),
        "unlikely_gradient_share": _share(1 - p_T[unlikely_T], 1 - p_T),
        "histogram": {"edges": edges.tolist(), "shares": (counts / len(p_T)).tolist()},
    }


def _share(part_T: np.ndarray, whole_T: np.ndarray) -> float:
    return float(part_T.sum() / whole_T.sum()) if whole_T.any() else 0.0


def own_sources(rewriting: RewriteConfig) -> list[str]:
    """The stages whose responses the policy itself wrote."""
    return [
        stage.name
        for stage in rewriting.stages
        if not isinstance(stage, ExpertStage) and not (isinstance(stage, TeacherStage) and stage.keep_own)
    ]
