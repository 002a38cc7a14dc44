"""The likelihood of held-out rows, measured in one process; several ranks are in tests/e2e/test_train_invariance.py."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from offsft.config import TrainConfig
from offsft.config.objective import Sft
from offsft.train.checkpoint import random_states
from offsft.train.columns import ColumnBuilder
from offsft.train.held_out import HeldOut, held_out_result
from offsft.train.policy import PolicyLoss
from offsft.train.rows import Row
from offsft.train.step_log import StepLog

ROWS = [
    Row("a", "self", [3, 4], [5, 6, 7]),
    Row("b", "guided", [8, 9, 10], [11]),
    Row("c", "guided", [12], [13, 14]),
    Row("d", "expert", [15], []),
]


@pytest.fixture(scope="module")
def policy():
    """A policy in training with dropout, with the one attribute that is read of a DeepSpeed engine besides."""
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=32, attention_dropout=0.5, **size))
    policy = PolicyLoss(model, Sft(), dropout=True)
    policy.device = torch.device("cpu")
    return policy.train()


def columns(rows):
    builder = ColumnBuilder(behavior=False)
    for row in rows:
        builder.add(row)
    builder.close_batch()
    return builder.build()


def measuring(path, *, rows=ROWS, steps=4, first_step=-1, **settings):
    log = StepLog(path, first_step, write=True)
    return HeldOut(columns(rows), TrainConfig(**settings), steps=steps, rank=0, ranks=1, log=log)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("micro_batch_tokens", [16, 64])
def test_the_mean_is_over_the_tokens_of_each_source_and_of_all(policy, tmp_path, micro_batch_tokens):
    log = tmp_path / "held_out.jsonl"
    settings = {"micro_batch_tokens": micro_batch_tokens, "max_tokens": 16}
    measuring(log, **settings).measure(policy, 0)
    (line,) = lines_of(log)
    policy.eval()
    want = {"self": [], "guided": []}
    for row in ROWS[:3]:
        with torch.no_grad():
            logits = policy.model(torch.tensor([[*row.prompt_ids, *row.response_ids]])).logits[0].double()
        predicted = logits.log_softmax(-1)[len(row.prompt_ids) - 1 : -1]
        want[row.source] += [-predicted[i, token].item() for i, token in enumerate(row.response_ids)]
    policy.train()
    for source, nlls in want.items():
        assert line[f"held_out/nll/{source}"] == pytest.approx(sum(nlls) / len(nlls), rel=1e-5)
    every = want["self"] + want["guided"]
    assert line["held_out/nll/all"] == pytest.approx(sum(every) / len(every), rel=1e-5)
    assert "held_out/nll/expert" not in line, "a source without a token has no mean"


def test_nothing_of_the_training_changes(policy, tmp_path):
    before, weights = random_states(), {name: value.clone() for name, value in policy.state_dict().items()}
    measuring(tmp_path / "held_out.jsonl").measure(policy, 0)
    after = random_states()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]
    assert (before["numpy"][1] == after["numpy"][1]).all()
    assert policy.training
    assert policy.model.model.layers[0].self_attn.training
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in policy.state_dict().items())


def test_it_measures_before_the_first_step_every_few_and_after_the_last(policy, tmp_path):
    log = tmp_path / "held_out.jsonl"
    held_out = measuring(log, steps=7, held_out_every=3)
    assert [held_out.measure(policy, step) is not None for step in range(8)] == [True, 0, 0, True, 0, 0, True, True]
    assert [line["step"] for line in lines_of(log)] == [0, 3, 6, 7]
    measuring(log, steps=7, held_out_every=3, first_step=3).measure(policy, 6)
    assert [line["step"] for line in lines_of(log)] == [0, 3, 6], "resuming repeats what came after the checkpoint"
    found = held_out_result(log, 4)
    assert (found["before"]["step"], found["last"]["step"], found["least"]["step"]) == (0, 6, 0)


def test_without_held_out_rows_nothing_is_measured_or_written(tmp_path):
    empty = measuring(tmp_path / "held_out.jsonl", rows=[])
    assert empty.measure(None, 0) is None
    assert not (tmp_path / "held_out.jsonl").exists()
    assert held_out_result(tmp_path / "held_out.jsonl", 0) is None
