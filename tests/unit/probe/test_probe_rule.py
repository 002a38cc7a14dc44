"""The rule that picks an objective, and what it says of text on which an objective's weights leave little."""

import math

import numpy as np
import pytest
from probe_trials import OPEN, decided, trial

from offsft.config.objective import Dft, Eaft, Is, Power, Prift, Sft
from offsft.probe.figures import describe_text, text_change, weights_of
from offsft.probe.rule import Verdict


def test_the_objective_that_clearly_learns_most_is_recommended_with_the_figures():
    found = decided([trial(Dft(), -0.05, seed=1), trial(Sft(), -0.4)])
    assert (found.verdict, found.objective, found.tied) == (Verdict.BEST, Sft(), ["sft"])
    assert found.summary.startswith(
        "take sft: over 2 steps with it the negative log-likelihood of 40 held-out responses"
    )
    assert "changes by -0.400 (" in found.summary
    assert "dft +0.350 (" in found.summary


def test_dft_is_recommended_where_it_learns_most():
    """The rule prefers no objective: on text where sft overshoots, the figures speak for dft."""
    found = decided([trial(Sft(), 0.1), trial(Dft(), -0.2, seed=1)], current=Sft(), probabilities=OPEN)
    assert (found.verdict, found.objective) == (Verdict.BEST, Dft())
    assert "little of it is left" not in " ".join(found.reasons)


def test_it_says_why_dft_learns_little_on_polarised_text():
    found = decided([trial(Sft(), -0.4), trial(Dft(), -0.05, seed=1), trial(Eaft(), -0.1)])
    text, dft = found.reasons
    assert "18 tokens on average, of which 78% are near-determined (p > 0.9)" in text
    assert "the 17% with p < 0.1 hold 93% of the negative log-likelihood" in text
    assert dft.startswith("dft weighs 17% of the tokens below 0.1, keeps 12% of sft's gradient")
    assert dft.endswith("little of it is left where there is most to learn.")


@pytest.mark.parametrize(
    ("current", "taken", "why"),
    [(Dft(), Dft(), "which the recipe has"), (Power(), Sft(), "the simplest"), (Sft(), Sft(), "which the recipe has")],
)
def test_where_the_intervals_overlap_it_says_so_and_keeps_what_is_there_or_the_simplest(current, taken, why):
    found = decided([trial(Sft(), -0.4, noise=0.3), trial(Dft(), -0.39, noise=0.3, seed=1)], current)
    assert (found.verdict, found.objective) == (Verdict.TIED, taken)
    assert found.tied == ["sft", "dft"]
    assert found.summary.startswith("the figures do not decide between sft and dft: ")
    assert found.summary.endswith(f"take {taken.kind}, {why}")


def test_a_certain_but_negligible_difference_decides_nothing():
    best, close, far = trial(Power(), -0.4, noise=1e-4), trial(Sft(), -0.39, noise=1e-4), trial(Dft(), -0.3, noise=1e-4)
    found = decided([close, best, far])
    assert (found.verdict, found.objective, found.tied) == (Verdict.TIED, Sft(), ["sft", "power"])
    assert decided([far, best]).verdict is Verdict.BEST


def test_of_tied_ones_without_the_recipes_and_the_simplest_the_lowest_is_taken():
    found = decided([trial(Eaft(), -0.39), trial(Power(), -0.4)], current=Dft())
    assert (found.verdict, found.objective) == (Verdict.TIED, Power())
    assert found.summary.endswith("take power, the lowest of them")


@pytest.mark.parametrize(("mean", "remedy"), [(0.0, "raise probe.steps"), (0.2, "lower train.learning_rate")])
def test_where_nothing_is_learnt_the_recipes_objective_stays(mean, remedy):
    found = decided([trial(Sft(), mean, noise=0.2), trial(Power(), mean, noise=0.2)], current=Dft())
    assert (found.verdict, found.objective, found.tied) == (Verdict.NOTHING_LEARNT, Dft(), [])
    assert f"keep dft, or {remedy}" in found.summary


def test_an_objective_that_pays_with_the_models_own_text_is_left_out_unless_all_do():
    sft, dft = trial(Sft(), -0.4, own=0.3), trial(Dft(), -0.2, own=0.01, seed=1)
    found = decided([sft, dft])
    assert (found.verdict, found.objective) == (Verdict.BEST, Dft())
    assert found.reasons[-1].startswith("sft makes what the model wrote itself less likely, by +0.300 (")
    both = decided([sft, trial(Dft(), -0.2, own=0.3, seed=1)])
    assert both.objective == Sft()
    assert decided([trial(Sft(), -0.4, own=0.1), dft]).objective == Sft(), "a price that is worth it"


def test_too_few_responses_decide_nothing():
    found = decided([trial(Sft(), -0.4, rows=5), trial(Dft(), 0.0, rows=5)])
    assert (found.verdict, found.objective) == (Verdict.TOO_FEW, Dft())
    assert "5 held-out responses are too few to decide by (8 are needed); keep dft" in found.summary


def test_the_same_figures_give_the_same_decision():
    trials = [trial(Sft(), -0.4), trial(Dft(), -0.38, seed=2), trial(Power(), -0.3, seed=3)]
    assert decided(trials) == decided(trials)
    assert decided(trials[::-1]).objective == decided(trials).objective


def test_changes_are_means_over_responses_whatever_their_length():
    before = {"a": np.array([-1.0, -3.0]), "b": np.array([-4.0])}
    after = {"b": np.array([-3.0]), "a": np.array([-1.0, -1.0])}
    found = text_change(before, after)
    assert (found.rows, found.before, found.after) == (2, 3.0, 2.0)
    assert found.by_row == {"a": -1.0, "b": -1.0}
    assert found.change.mean == -1.0


def test_weights_against_a_plain_sum():
    p = np.array([0.95, 0.05, 0.5])
    wrong = 1 - p
    assert weights_of(Sft(), p).signal_share == 1
    assert weights_of(Sft(), p).near_zero_share == 0
    dft = weights_of(Dft(), p)
    assert dft.signal_share == pytest.approx(sum(p * wrong) / sum(wrong))
    assert dft.unlikely_share == pytest.approx(0.05 * 0.95 / sum(p * wrong))
    assert dft.near_zero_share == pytest.approx(1 / 3)
    assert weights_of(Dft(frozen=True), p) == weights_of(Prift(), p) == dft
    assert weights_of(Power(exponent=1), p) == dft
    assert weights_of(Power(), p).signal_share == pytest.approx(sum(p**0.5 * wrong) / sum(wrong))
    assert weights_of(Is(), p) is None
    assert weights_of(Eaft(), p) is None
    certain = weights_of(Dft(), np.ones(3))
    assert (certain.signal_share, certain.unlikely_share) == (0, 0)


def test_an_even_spread_keeps_a_third_of_the_gradient():
    even = (np.arange(10_000) + 0.5) / 10_000
    assert weights_of(Dft(), even).signal_share == pytest.approx(1 / 3, abs=1e-4)


def test_a_text_is_described_by_its_tokens_probabilities():
    found = describe_text({"a": np.log([0.95, 0.05]), "b": np.log([0.5, 0.5])})
    assert (found["rows"], found["tokens"], found["tokens_per_row"]) == (2, 4, 2)
    assert (found["near_determined_share"], found["unlikely_share"]) == (0.25, 0.25)
    total = -math.log(0.95) - math.log(0.05) - 2 * math.log(0.5)
    assert found["nll"] == pytest.approx(total / 4)
    assert found["unlikely_nll_share"] == pytest.approx(-math.log(0.05) / total)
    assert found["unlikely_gradient_share"] == pytest.approx(0.95 / 2)
    shares = found["histogram"]["shares"]
    assert len(found["histogram"]["edges"]) == 11
    assert sum(shares) == 1
    assert (shares[0], shares[5], shares[9]) == (0.25, 0.5, 0.25)
