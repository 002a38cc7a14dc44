"""The comparison's table: intervals by a paired bootstrap over problems."""

import json
from dataclasses import replace

import numpy as np
import pytest

from offsft.compare.figure import write_figure
from offsft.compare.table import ArmAnswers, ArmResult, markdown, table_rows, write_table
from offsft.compare.tuning import choose
from offsft.evaluate.statistics import Judged
from offsft.evaluate.table import Answered
from offsft.records import Outcome

PROBLEMS = [f"{i:03d}" for i in range(200)]


def answers(share, seed, **more):
    draw = np.random.default_rng(seed)
    return ArmAnswers({key: float(draw.random() < share) for key in PROBLEMS}, mean_tokens=100.0, **more)


def arm(name, share, seeds=2):
    metrics = [{"step": s, "loss/nll": 2.0 - s / 10, "optim/grad_norm": 1.0 + s} for s in (1, 2, 3)]
    result = {"seconds": 60.0, "tokens": 1000, "final_nll": 1.7}
    rewritten = name.startswith("rewriting")
    return ArmResult(
        name,
        "sft",
        rewritten,
        [answers(share, seed) for seed in range(seeds)],
        [metrics] * seeds,
        [result] * seeds,
        {"generated_tokens": 5000, "seconds": 90.0} if rewritten else {},
    )


@pytest.fixture
def measured():
    return [ArmResult("Base", None, False, [answers(0.3, 9)], [], [], {}), arm("SFT", 0.5), arm("rewriting+SFT", 0.7)]


def test_rows_have_means_and_intervals(measured):
    base, sft, rewriting = table_rows(measured, "held_out")
    for row in (base, sft, rewriting):
        assert row["low"] < row["mean"] < row["high"]
        assert (row["suite"], row["problems"]) == ("held_out", 200)
    assert base["mean"] == pytest.approx(np.mean(list(measured[0].answers[0].accuracy.values())))
    assert (base["objective"], base["rewriting"], base["seeds"]) == (None, False, 1)
    assert (sft["objective"], sft["rewriting"], sft["seeds"]) == ("sft", False, 2)
    assert rewriting["rewriting"] is True
    # Twice the binomial standard error each way, for one answer per problem.
    error = 1.96 * (base["mean"] * (1 - base["mean"]) / 200) ** 0.5
    assert base["high"] - base["mean"] == pytest.approx(error, rel=0.15)
    assert rewriting["cost"]["sampled_tokens"] == 5000
    assert sft["cost"]["sampled_tokens"] == 0
    assert sft["mean_grad_norm"] == 3.0


def test_the_held_out_likelihood_and_its_spread_over_seeds_stand_in_the_table(measured):
    assert "held-out" not in markdown(table_rows(measured, "s"))
    lasts = [{"all": 0.5, "self": 0.5}, {"all": 0.7, "self": 0.6}]
    runs = [{**measured[1].trained[0], "held_out": {"rows": 3, "last": {"step": 3, "nll": last}}} for last in lasts]
    rows = table_rows([measured[0], replace(measured[1], trained=runs), measured[2]], "s")
    assert rows[1]["held_out_nll"] == pytest.approx({"all": 0.6, "self": 0.55})
    assert rows[1]["held_out_nll_seed_std"] == pytest.approx({"all": 0.02**0.5, "self": 0.005**0.5})
    assert "held_out_nll" not in rows[2]
    head, _, base, sft, rewriting = markdown(rows).splitlines()
    assert {line.count("|") for line in (head, base, sft, rewriting)} == {head.count("|")}
    place = head.split("|").index(" held-out nll (std over seeds) ")
    assert [line.split("|")[place].strip() for line in (base, sft, rewriting)] == ["", "0.600 (0.141)", ""]
    assert sft.split("|")[place + 1].strip() == "3.00 (0%)"


def test_differences_are_paired():
    """Problems that both find hard add no noise: the same answers differ by exactly 0."""
    same = [answers(0.4, 1)]
    metrics = [[{"step": 1, "loss/nll": 1.0, "optim/grad_norm": 1.0}]]
    twin = ArmResult("twin", "dft", True, same, metrics, [{"seconds": 1.0, "tokens": 1, "final_nll": 1.0}], {})
    _, row = table_rows([ArmResult("Base", None, False, same, [], [], {}), twin], "s")
    assert row["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert row["low"] < row["high"]


def test_table_and_figure_are_written(measured, tmp_path):
    rows = table_rows(measured, "held_out")
    write_table(rows, tmp_path)
    write_figure(rows, measured, tmp_path / "compare.png")
    assert json.loads((tmp_path / "table.json").read_text()) == {"rows": rows}
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[3].startswith("| SFT | ")
    from matplotlib.image import imread

    assert len(np.unique(imread(tmp_path / "compare.png")[..., :3].reshape(-1, 3), axis=0)) > 20


def test_each_arm_shows_what_it_forgot_how_far_it_moved_and_its_learning_rate(measured):
    base, sft, _ = measured
    held = {"code": dict.fromkeys(PROBLEMS, 1.0)}
    lost = {"code": {key: float(number % 4 > 0) for number, key in enumerate(PROBLEMS)}}
    base = replace(base, answers=[replace(base.answers[0], retention=held)])
    seeds = [replace(each, retention=lost, kl=kl) for each, kl in zip(sft.answers, (0.02, 0.04), strict=True)]
    tried = [
        {"learning_rate": rate, "mean": mean, "low": 0.1, "high": 0.9} for rate, mean in ((1e-5, 0.5), (2e-5, 0.6))
    ]
    rows = table_rows([base, replace(sft, answers=seeds, learning_rate=2e-5, grid=tried)], "held_out")
    assert rows[1]["kl"] == pytest.approx(0.03)
    change = rows[1]["retention"]["code"]
    assert change["mean"] == pytest.approx(-0.25)
    assert change["low"] < -0.25 < change["high"] < 0
    assert rows[1]["grad_norm_seed_spread"] == 0, "both seeds have the same norms here"
    text = markdown(rows)
    assert "| code, points | learning rate |" in text
    assert "| 0.0300 | -25.0 (" in text
    assert "| SFT, validation | 50.0 (10.0 to 90.0) | 60.0 (10.0 to 90.0) |" in text


def test_answers_leave_out_the_problems_that_chose_the_rate_and_the_cut_ones_where_said():
    right, wrong, cut = (Judged(outcome, "1", 10) for outcome in (Outcome.CORRECT, Outcome.WRONG, Outcome.TRUNCATED))
    suites = {
        "held_out": {"v": Answered([right], None), "a": Answered([right], None), "b": Answered([cut], None)},
        "other": {"c": Answered([wrong], None)},
    }
    found = ArmAnswers.of(suites, ["other"], frozenset({"v"}), 0.1)
    assert found == ArmAnswers({"a": 1.0, "b": 0.0}, {"other": {"c": 0.0}}, 0.5, 1.0, 10.0, 0.1)


def test_the_best_rate_is_chosen_and_of_equal_ones_the_lowest():
    entries = [{"learning_rate": rate, "mean": mean} for rate, mean in ((4e-5, 0.5), (2e-5, 0.5), (1e-5, 0.25))]
    assert choose(entries) == 2e-5
