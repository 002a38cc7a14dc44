"""The comparison's table: intervals by a paired bootstrap over problems."""

import json

import numpy as np
import pytest

from offsft.compare.figure import write_figure
from offsft.compare.table import Measured, table_rows, write_table

PROBLEMS = [f"{i:03d}" for i in range(200)]


def answers(share, seed):
    draw = np.random.default_rng(seed)
    return {key: float(draw.random() < share) for key in PROBLEMS}


def arm(name, share, seeds=2):
    metrics = [{"step": s, "loss/nll": 2.0 - s / 10, "optim/grad_norm": 1.0 + s} for s in (1, 2, 3)]
    result = {"seconds": 60.0, "tokens": 1000, "final_nll": 1.7}
    rewritten = name.startswith("rewriting")
    return Measured(
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
    return [Measured("Base", None, False, [answers(0.3, 9)], [], [], {}), arm("SFT", 0.5), arm("rewriting+SFT", 0.7)]


def test_rows_have_means_and_intervals(measured):
    base, sft, rewriting = table_rows(measured, "held_out")
    for row in (base, sft, rewriting):
        assert row["low"] < row["mean"] < row["high"]
        assert (row["suite"], row["problems"]) == ("held_out", 200)
    assert base["mean"] == pytest.approx(np.mean(list(measured[0].accuracy[0].values())))
    assert (base["objective"], base["rewriting"], base["seeds"]) == (None, False, 1)
    assert (sft["objective"], sft["rewriting"], sft["seeds"]) == ("sft", False, 2)
    assert rewriting["rewriting"] is True
    # Twice the binomial standard error each way, for one answer a problem.
    error = 1.96 * (base["mean"] * (1 - base["mean"]) / 200) ** 0.5
    assert base["high"] - base["mean"] == pytest.approx(error, rel=0.15)
    assert rewriting["cost"]["sampled_tokens"] == 5000
    assert sft["cost"]["sampled_tokens"] == 0
    assert sft["mean_grad_norm"] == 3.0


def test_differences_are_paired():
    """What both find hard is no noise: the same answers differ by exactly 0."""
    same = [answers(0.4, 1)]
    metrics = [[{"step": 1, "loss/nll": 1.0, "optim/grad_norm": 1.0}]]
    twin = Measured("twin", "dft", True, same, metrics, [{"seconds": 1.0, "tokens": 1, "final_nll": 1.0}], {})
    _, row = table_rows([Measured("Base", None, False, same, [], [], {}), twin], "s")
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
