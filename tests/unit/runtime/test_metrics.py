"""metrics.jsonl: each step once, even after a kill."""

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from offsft.config import TrainConfig
from offsft.errors import ConfigError
from offsft.losses.fused_head import HeadOutput
from offsft.train.batching import BatchPlan
from offsft.train.step_log import StepLog, metrics_line
from offsft.train.sums import Adder, Sums
from offsft.train.trackers import Reports, check_packages

PLAN = BatchPlan([5, 6, 7, 8], global_batch=2, micro_batch_tokens=32, ranks=1, seed=0, epochs=2)
SUMS = Sums(
    loss=3.0,
    nll=30.0,
    weight=2.0,
    weight_squared=0.5,
    clipped=4.0,
    tokens=10.0,
    row_tokens=26.0,
    computed_tokens=32.5,
    grad_norm=0.7,
)


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def log(path, first_step, *, write=True):
    return StepLog(path, first_step, write=write)


def add(metrics, step, sums=SUMS):
    metrics.add(metrics_line(step, PLAN, sums, 1e-4, 5.0, 2.0))


def test_a_step_that_is_done_again_is_counted_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = log(path, 0)
    for step in range(3):
        add(first, step)
    second = log(path, 2)
    assert steps(path) == [1, 2]
    for step in (2, 3):
        add(second, step)
    assert steps(path) == [1, 2, 3, 4]


def test_all_ranks_know_how_many_lines_there_are_and_one_writes(tmp_path):
    path = tmp_path / "skipped.jsonl"
    for step in range(3):
        add(log(path, step), step)
    reader = log(path, 2, write=False)
    assert reader.lines == 2
    add(reader, 2)
    assert reader.lines == 3
    assert steps(path) == [1, 2, 3], "what only reads leaves the file as it is"


def test_half_a_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    add(log(path, 0), 0)
    with path.open("a") as file:
        file.write('{"step": 2, "loss/obj')
    add(log(path, 1), 1)
    assert steps(path) == [1, 2]


def test_sums_become_means_over_response_tokens_and_rates(tmp_path):
    path = tmp_path / "metrics.jsonl"
    add(log(path, 0), 2)
    line = json.loads(path.read_text())
    assert (line["step"], line["steps"], line["epoch"]) == (3, 4, 2)
    assert (line["loss/objective"], line["loss/nll"], line["weight/mean"]) == (0.6, 3.0, 0.2)
    assert line["weight/ess_share"] == 2.0**2 / (0.5 * 10)
    assert line["perf/tokens_per_s"] == 13.0
    assert line["perf/padding_share"] == pytest.approx(0.2)
    assert not [name for name in line if "clipped" in name or name.startswith("ratio")]


def test_bounds_and_ratios_are_shown_where_the_objective_has_them(tmp_path):
    path = tmp_path / "metrics.jsonl"
    adder = Adder("cpu")
    ratios = torch.linspace(0.5, 1.5, 1001)
    clipped = (ratios > 1.2).float()
    for part in (slice(0, 300), slice(300, 1001)):
        ones = torch.ones(len(ratios[part]))
        adder.add(HeadOutput(ones.sum(), -ones, ones, ratios[part], clipped[part]), row_tokens=9, computed_tokens=10)
    add(log(path, 0), 0, adder.total(ranks=1))
    line = json.loads(path.read_text())
    assert line["weight/clipped_share"] == pytest.approx(0.3, abs=0.001)
    assert line["perf/padding_share"] == pytest.approx(0.1)
    for quantile in (10, 50, 90, 99):
        # Counted in bins of 0.01 nats.
        assert line[f"ratio/p{quantile}"] == pytest.approx(0.5 + quantile / 100, rel=0.011)


def test_a_step_without_response_tokens_has_no_statistics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    add(log(path, 0), 0, Sums(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 26.0, 26.0, 0.0))
    line = json.loads(path.read_text())
    assert line["loss/objective"] == 0.0
    assert line["weight/ess_share"] is None


def test_a_gradient_that_deepspeed_gave_up_on_is_not_finite():
    assert SUMS.finite
    for norm in (float("nan"), float("inf"), -1.0):
        assert not replace(SUMS, grad_norm=norm).finite
    assert not replace(SUMS, loss=float("inf")).finite


@pytest.mark.parametrize(("setting", "package"), [({"tensorboard": True}, "tensorboard"), ({"wandb": "mine"}, "wandb")])
def test_a_setting_whose_package_is_missing_says_what_to_do(monkeypatch, setting, package):
    check_packages(TrainConfig(**setting))
    monkeypatch.setattr("offsft.train.trackers.find_spec", lambda name: None)
    check_packages(TrainConfig())
    with pytest.raises(ConfigError, match=rf"train.{package}=\w+ needs the package {package}; install it, or leave"):
        check_packages(TrainConfig(**setting))


def _open_reports(rank: int, folder: str, told: multiprocessing.Queue) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_API_KEY_FILE"):
        os.environ.pop(name, None)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        Reports("run", TrainConfig(wandb="mine"), Path(folder) / "board", Path(folder) / "wandb", rank, 0)
    except ConfigError as error:
        told.put(str(error))


def test_without_a_key_for_weights_and_biases_all_ranks_stop_together(tmp_path):
    spawning = multiprocessing.get_context("spawn")
    told = spawning.Queue()
    ranks = [spawning.Process(target=_open_reports, args=(rank, str(tmp_path), told)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    try:
        first, second = told.get(timeout=120), told.get(timeout=120)
    finally:
        for rank in ranks:
            rank.join(30)
            rank.kill()
    assert first == second
    assert "WANDB_API_KEY" in first
    assert "WANDB_MODE=offline" in first
