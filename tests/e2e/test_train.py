"""Training for real: DeepSpeed under Ray Train on a tiny model. However the work is divided, the numbers are the same."""

import json
import math
import os
import random
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import ray
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from offsft.errors import TrainingError
from offsft.recipes import load
from offsft.run_folder import RunFolder
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.rows import Row, pack
from offsft.train.run import train

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("ray_session")]

RTOL = 2e-4
"""Relative tolerance of losses and gradient norms between two ways to divide the same float32 work."""


def write_rewrites(folder, rows=10):
    draw = random.Random(0)
    folder.rewrites.mkdir(parents=True)
    items = [
        {
            "id": f"{i:02d}",
            "source": "self",
            "prompt_ids": [draw.randrange(250) for _ in range(draw.randint(3, 30))],
            "response_ids": [draw.randrange(250) for _ in range(draw.randint(1, 40))],
            "expert_ids": [draw.randrange(250) for _ in range(draw.randint(1, 40))],
        }
        for i in range(rows)
    ]
    for item in items:
        item["behavior_logprobs"] = [draw.uniform(-7, -4) for _ in item["response_ids"]]
    pq.write_table(pa.Table.from_pylist(items), folder.rewrites / "a.parquet")
    return items


def run(path, model, console, *overrides):
    settings = [
        f"run={path}",
        "model.dtype=float32",
        "train.max_tokens=96",
        "train.micro_batch_tokens=4096",
        "train.global_batch=4",
        "train.learning_rate=1e-2",
        "train.objective.kind=dft",
        "train.warmup=0",
        "train.clip=0.5",
    ]
    recipe = load(None, [*settings, *overrides])
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    items = write_rewrites(folder)
    result = train(recipe, folder, model, console)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return lines, folder, result, items


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny_model):
    """One worker, no sharding, everything in one micro-batch: the run that all others must equal."""
    from offsft.console import Console

    settings = ("train.zero_stage=0", "train.tensorboard=true", "train.wandb=offsft")
    return run(tmp_path_factory.mktemp("train") / "plain", tiny_model, Console(), *settings)


def test_the_first_step_is_what_the_formula_says(plain, tiny_model):
    lines, _, result, items = plain
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert result["steps"] == 3
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    rows = [Row(item["id"], "self", item["prompt_ids"], item["response_ids"]) for item in items]
    settings = load(None, ["run=x", "train.objective.kind=dft"]).train
    policy = PolicyLoss(model, settings.objective, chunk_tokens=7)
    from offsft.batching import Plan

    chosen = Plan([row.tokens for row in rows], 4, 4096, 1, 0, 1).rows(0)
    tokens = sum(len(rows[i].response_ids) for i in chosen)
    loss, logprobs, *_ = loss_of(policy, pack(rows, chosen))
    (loss / tokens).backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()]))
    assert lines[0]["loss/objective"] == pytest.approx(loss.item() / tokens, rel=RTOL)
    assert lines[0]["loss/nll"] == pytest.approx(-logprobs.mean().item(), rel=RTOL)
    assert lines[0]["optim/grad_norm"] == pytest.approx(norm.item(), rel=RTOL)
    assert lines[0]["response_tokens"] == tokens


def test_each_steps_metrics_are_in_tensorboards_and_in_weights_and_biases_files(plain):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines, folder, _, _ = plain
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload().Scalars("loss/nll")
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx([line["loss/nll"] for line in lines])
    (written,) = (folder.path / "wandb" / "wandb").glob("offline-run-*/*.wandb")
    for line in lines:
        assert json.dumps(line["loss/nll"]).encode() in written.read_bytes()


def test_two_zero3_ranks_equal_one_without_sharding(plain, tmp_path, tiny_model, console):
    """ZeRO-2 is compared below, where its workers are killed; all other ways in test_train_invariance.py."""
    overrides = ("train.zero_stage=3", "train.workers=2", "train.micro_batch_tokens=96")
    lines, folder, _, _ = run(tmp_path / "run", tiny_model, console, *overrides, "train.gradient_checkpointing=true")
    want, plain_folder, _, _ = plain
    for key in ("loss/objective", "loss/nll", "optim/grad_norm", "weight/mean", "weight/ess_share"):
        assert [line[key] for line in lines] == pytest.approx([line[key] for line in want], rel=RTOL), key
    got, expected = (load_file(f.model / "model.safetensors") for f in (folder, plain_folder))
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-2, atol=2e-3, msg=name)


def test_the_exported_model_is_whole_and_has_learnt(plain, tiny_model):
    _, folder, _, _ = plain
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    assert tokenizer.chat_template
    before, after = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (tiny_model, folder.model)
    )
    assert after.get_output_embeddings().weight is after.get_input_embeddings().weight
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_two_workers_in_bfloat16_train(tmp_path, tiny_model, console):
    lines, folder, _, _ = run(tmp_path / "run", tiny_model, console, "model.dtype=bfloat16", "train.workers=2")
    assert len(lines) == 3
    assert load_file(folder.model / "model.safetensors")["model.norm.weight"].dtype is torch.bfloat16


def test_adapters_are_trained_merged_and_kept(tmp_path, tiny_model, console):
    from peft import PeftModel

    overrides = ("train.lora.rank=4", "train.lora.keep_adapter=true", "train.workers=2", "train.zero_stage=3")
    lines, folder, _, _ = run(tmp_path / "run", tiny_model, console, *overrides, "train.gradient_checkpointing=true")
    assert lines[-1]["optim/grad_norm"] > 0
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(folder.model, dtype=torch.float32)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, str(folder.adapter))(ids).logits
        torch.testing.assert_close(merged(ids).logits, adapted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(adapted, before, atol=1e-3)


def test_reference_and_gap_are_computed_once(tmp_path, tiny_model, console):
    overrides = ("train.objective.kind=psft", "train.workers=2", "train.gap_rows=4", "train.micro_batch_tokens=96")
    lines, folder, result, items = run(tmp_path / "run", tiny_model, console, *overrides)
    # Before the first step the policy is its own reference.
    assert lines[0]["weight/mean"] == pytest.approx(1, rel=1e-4)
    assert lines[0]["ratio/p10"] == lines[0]["ratio/p99"] == pytest.approx(1)
    assert lines[-1]["ratio/p99"] > 1.01
    kept = pyarrow.dataset.dataset(sorted(map(str, folder.reference.glob("*.parquet")))).to_table().to_pylist()
    assert {row["id"]: len(row["logprobs"]) for row in kept} == {i["id"]: len(i["response_ids"]) for i in items}
    for when in ("before", "after"):
        for responses in ("kept", "expert"):
            assert result["gap"][when][responses]["all"]["rows"] == 4
    before, after = (result["gap"][when]["kept"]["all"]["mean_logprob"] for when in ("before", "after"))
    assert before != after


def test_a_loss_that_is_not_finite_stops_with_the_rows(tmp_path, tiny_model, console):
    broken = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        broken.get_parameter("model.norm.weight").fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "broken")
    message = r"the loss of step 1 is nan; lower train.learning_rate, or look at the rows 0\d, 0\d, 0\d, 0\d"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path / "run", str(tmp_path / "broken"), console, "train.workers=2")
    assert not (tmp_path / "run" / "model").exists()
    assert starts(tmp_path / "run") == ["1"], "the workers were started again, to fail at the same step"


def loop_that_dies_once(config):
    """The real loop, in which rank 0 ends without a word when step 2 is counted but its checkpoint not yet written."""
    from offsft.train import worker

    run_path = Path(config["spec"].logs).parent
    died, counted = run_path / "died", run_path / "checkpoints" / "train" / "checkpoint_manager_snapshot.json"
    save = worker._save

    def save_or_die(engine, step, run):
        if step == 2 and not died.exists() and os.environ["RANK"] == "0":
            died.touch()
            while not counted.exists():  # Ray Train has heard of a checkpoint only when its controller next asks
                time.sleep(0.1)
            os._exit(1)
        save(engine, step, run)

    worker._save = save_or_die
    return worker.train_loop(config)


def test_killed_workers_go_on_from_the_checkpoint(plain, tmp_path, tiny_model, console, monkeypatch):
    # Sent to the workers as source: they cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("offsft.train.run.train_loop", loop_that_dies_once)
    overrides = ("train.zero_stage=2", "train.workers=2", "train.checkpoint_steps=1", "train.keep_checkpoints=1")
    lines, folder, result, _ = run(tmp_path / "run", tiny_model, console, *overrides)
    want, plain_folder, _, _ = plain
    assert starts(tmp_path / "run") == ["1", "2"]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert result["steps"] == 3
    for key in ("loss/objective", "loss/nll", "optim/grad_norm"):
        assert [line[key] for line in lines] == pytest.approx([line[key] for line in want], rel=RTOL), key
    got, expected = (load_file(f.model / "model.safetensors") for f in (folder, plain_folder))
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-2, atol=2e-3, msg=name)
    assert len(list((folder.checkpoints / "train").glob("checkpoint_*/"))) == 1


def loop_with_a_broken_step(config):
    """The real loop, in which the loss of step 2 is not finite."""
    from offsft.train import worker

    train_step = worker.train_step

    def broken(engine, rows, plan, step, *rest, **named):
        rows = [replace(row, weight=math.nan) for row in rows] if step == 1 else rows
        return train_step(engine, rows, plan, step, *rest, **named)

    worker.train_step = broken
    return worker.train_loop(config)


def test_as_many_steps_as_allowed_are_skipped_and_named(tmp_path, tiny_model, console, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("offsft.train.run.train_loop", loop_with_a_broken_step)
    lines, folder, result, _ = run(tmp_path / "run", tiny_model, console, "train.workers=2", "train.skip_steps=1")
    assert [line["step"] for line in lines] == [1, 3]
    (skipped,) = (folder.path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped)["step"] == 2
    assert len(json.loads(skipped)["rows"]) == 4
    assert result["skipped_steps"] == 1
    assert all(tensor.isfinite().all() for tensor in load_file(folder.model / "model.safetensors").values())


def starts(run_path):
    """The step from which rank 0 trained, each time that it was started."""
    return re.findall(r"rank 0 of \d+: training from step (\d+)", (run_path / "logs" / "train-0.log").read_text())
