"""mean@k, pass@k, maj@k and differences, compared with values by hand and with brute force."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.evaluate.statistics import (
    Judged,
    ScoreEstimate,
    estimate,
    ks,
    majority,
    mean_and_stderr,
    mean_of,
    outcome_share,
    paired_difference,
    pass_at,
    share_correct,
    vote,
)
from offsft.records import Outcome


def judged(answer, *, right="7"):
    outcome = Outcome.NO_ANSWER if answer is None else Outcome.CORRECT if answer == right else Outcome.WRONG
    return Judged(outcome, answer, 10)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_that_hold_a_correct_sample(correct, data):
    k = data.draw(st.integers(1, len(correct)))
    subsets = list(combinations(correct, k))
    assert pass_at(len(correct), sum(correct), k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(
    ("samples", "correct", "k", "value"),
    [(16, 0, 4, 0.0), (16, 16, 1, 1.0), (4, 1, 1, 0.25), (4, 1, 2, 0.5), (4, 2, 2, 5 / 6), (5, 4, 2, 1.0)],
)
def test_pass_at_k_by_hand(samples, correct, k, value):
    assert pass_at(samples, correct, k) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        (["7", "8", "7"], 1.0),
        (["7", "8", "8"], 0.0),
        (["7", "8"], 0.5),  # a tie: one of two is drawn
        (["7", "8", "9"], 1 / 3),
        ([None, None, "7"], 1.0),  # no answer, no vote
        ([None, None], 0.0),
        (["1/2", "0.5", "3", "3", "3"], 0.0),
    ],
)
def test_the_majority_by_hand(answers, value):
    assert majority([judged(answer) for answer in answers]) == pytest.approx(value)


@given(st.lists(st.sampled_from(["7", "8", "9", None]), min_size=1, max_size=7))
def test_the_majority_is_the_expected_value_of_drawing_one_of_the_largest_groups(answers):
    votes = [answer for answer in answers if answer is not None]
    largest = [a for a in set(votes) if votes.count(a) == max(votes.count(b) for b in votes)]
    want = sum(a == "7" for a in largest) / len(largest) if largest else 0.0
    assert majority([judged(answer) for answer in answers]) == pytest.approx(want)


@pytest.mark.parametrize(
    "same",
    [
        ("1/2", "0.5", "\\frac{1}{2}", "$0.50$"),
        ("1,024", "1024", "1024.0", "1{,}024"),
        ("x^2 + 1", "x^2+1", "$x^2 + 1$"),
        ("\\left(1, \\frac{\\pi}{2}\\right)", "(1,\\dfrac{\\pi}{2})"),
    ],
)
def test_equal_answers_vote_alike(same):
    assert len({vote(answer) for answer in same}) == 1


def test_different_answers_vote_apart():
    assert len({vote(answer) for answer in ("3", "-3", "3x", "1/3", "(3,1)", "3 hours", "\\sqrt{3}")}) == 7


def test_mean_and_standard_error_by_hand():
    assert mean_and_stderr([1.0, 0.0, 1.0, 0.0]) == pytest.approx((0.5, math.sqrt(1 / 3 / 4)))
    mean, stderr = mean_and_stderr([1.0])
    assert mean == 1.0
    assert math.isnan(stderr)


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=12))
def test_the_standard_error_is_the_cluster_robust_one(problems):
    """For the mean over all samples, with problems as clusters: residuals are summed per problem, then squared."""
    values = np.array(problems, dtype=float)
    residuals = (values - values.mean()).sum(axis=1)
    count = len(problems)
    robust = math.sqrt(float((residuals**2).sum()) * count / (count - 1)) / values.size
    assert mean_and_stderr([float(row.mean()) for row in values])[1] == pytest.approx(robust)


def test_the_interval_is_that_of_every_possible_resample():
    """With three problems, all 27 resamples can be enumerated."""
    values = [0.0, 0.25, 1.0]
    means = np.repeat([np.mean([values[i] for i in drawn]) for drawn in product(range(3), repeat=3)], 100)
    found = estimate(values)
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=1e-9)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=1e-9)


def test_a_difference_is_taken_problem_by_problem():
    first = {"a": 0.0, "b": 0.5, "c": 1.0, "only": 1.0}
    second = {"a": 0.5, "b": 1.0, "c": 1.0, "other": 0.0}
    found = paired_difference(first, second)
    assert (found.mean, found.stderr) == pytest.approx(mean_and_stderr([0.5, 0.5, 0.0]))
    unpaired = math.hypot(mean_and_stderr([0.0, 0.5, 1.0])[1], mean_and_stderr([0.5, 1.0, 1.0])[1])
    assert found.stderr < unpaired
    assert 0 <= found.low <= found.mean <= found.high
    with pytest.raises(ValueError, match="no problem"):
        paired_difference({"a": 1.0}, {"b": 1.0})


def test_the_mean_of_suites_weighs_each_alike():
    found = mean_of([ScoreEstimate(0.2, 0.03, 0, 0), ScoreEstimate(0.6, 0.04, 0, 0)])
    assert (found.mean, found.stderr) == pytest.approx((0.4, 0.025))
    assert (found.low, found.high) == pytest.approx((0.4 - 0.049, 0.4 + 0.049))


def test_small_figures():
    samples = [judged("7"), judged("8"), judged(None), Judged(Outcome.TRUNCATED, None, 99)]
    assert share_correct(samples) == outcome_share(samples, Outcome.TRUNCATED) == 0.25
    assert [ks(n) for n in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]
