"""An evaluation's statistics from the verdicts on its samples, problem by problem; pure functions.

The problems are the random draw: every standard error and interval is computed over per-problem values. The samples of
one problem are correlated, and so do not count as independent.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from offsft.records import Outcome
from offsft.verify.quantity import read

RESAMPLES = 4_000
INTERVAL = (0.025, 0.975)
_DRAWN_AT_ONCE = 1 << 20
_TYPESETTING = re.compile(r"\\(?:left|right|,|!|;|:|displaystyle)(?![A-Za-z])|[\s$]")


@dataclass(frozen=True, slots=True)
class Judged:
    """One judged sample: its outcome, the answer extracted from it, and its length."""

    outcome: Outcome
    answer: str | None
    tokens: int

    @property
    def correct(self) -> bool:
        return self.outcome is Outcome.CORRECT


@dataclass(frozen=True, slots=True)
class ScoreEstimate:
    """A mean over problems, its standard error (NaN for one problem), and a 95 % interval."""

    mean: float
    stderr: float
    low: float
    high: float


def share_correct(samples: Sequence[Judged]) -> float:
    """mean@k of one problem."""
    return sum(sample.correct for sample in samples) / len(samples)


def share_correct_of_complete(samples: Sequence[Judged]) -> float:
    """Share of correct samples among those that were not cut off; NaN if all were.

    A model that is cut off less often scores better without having learnt more; this figure leaves that out.
    """
    complete = [sample.correct for sample in samples if sample.outcome is not Outcome.TRUNCATED]
    return sum(complete) / len(complete) if complete else math.nan


def pass_at(samples: int, correct: int, k: int) -> float:
    """Probability that `k` of the samples, drawn without replacement, hold a correct one: 1 - C(n-c, k) / C(n, k).

    This is the unbiased estimate of pass@k from n >= k samples (arXiv 2107.03374).
    """
    assert 0 <= correct <= samples, (correct, samples)
    assert 1 <= k <= samples, (k, samples)
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority(samples: Sequence[Judged]) -> float:
    """maj@k of one problem: whether the answer that most samples agree on is correct.

    Answers are grouped by `vote`, a normalised text; a sample without an answer has no vote. Ties are broken at random,
    and the expected value is returned. Without any vote it is 0.
    """
    groups: defaultdict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        if sample.answer is not None:
            groups[vote(sample.answer)].append(sample.correct)
    if not groups:
        return 0.0
    most = max(map(len, groups.values()))
    winners = [sum(group) / most for group in groups.values() if len(group) == most]
    return math.fsum(winners) / len(winners)


def vote(answer: str) -> str:
    """A text that is equal for equal answers: plain numbers by their value, all else without typesetting."""
    bare, unit, number = read(answer)
    if number is not None:
        return " ".join([str(number.value), *unit])
    text = _TYPESETTING.sub("", bare.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    return " ".join([text, *unit])


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (sample standard deviation over the root of n; NaN for one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def estimate(values: Sequence[float], resamples: int = RESAMPLES) -> ScoreEstimate:
    """Mean over problems with its standard error and the percentile interval of a bootstrap over the problems.

    The draws depend only on the number of values: the same values give the same interval, and the interval of
    per-problem differences is that of a paired bootstrap.
    """
    mean, stderr = mean_and_stderr(values)
    array, draw = np.asarray(values, dtype=np.float64), np.random.default_rng(0)
    rows = max(1, _DRAWN_AT_ONCE // len(values))
    resampled = [
        array[draw.integers(len(array), size=(min(rows, resamples - first), len(array)))].mean(axis=1)
        for first in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(resampled), INTERVAL)
    return ScoreEstimate(mean, stderr, float(low), float(high))


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> ScoreEstimate:
    """`second` minus `first`, paired by problem, over the problems for which both have a value.

    Problems that are hard for both then do not count as noise.

    Raises:
        ValueError: they have no problem in common.
    """
    both = sorted(first.keys() & second.keys())
    if not both:
        raise ValueError("no problem was answered by both")
    return estimate([second[key] - first[key] for key in both])


def mean_of(estimates: Sequence[ScoreEstimate]) -> ScoreEstimate:
    """Unweighted mean over independent suites; the interval is normal: 1.96 standard errors."""
    mean = math.fsum(one.mean for one in estimates) / len(estimates)
    stderr = math.sqrt(math.fsum(one.stderr**2 for one in estimates)) / len(estimates)
    return ScoreEstimate(mean, stderr, mean - 1.96 * stderr, mean + 1.96 * stderr)


def ks(samples: int) -> list[int]:
    """The values of k for which pass@k is shown: powers of two up to the number of samples, and that number."""
    return sorted({2**power for power in range(samples.bit_length())} | {samples})


def outcome_share(samples: Sequence[Judged], outcome: Outcome) -> float:
    """Share of the samples with this outcome."""
    return sum(sample.outcome is outcome for sample in samples) / len(samples)
