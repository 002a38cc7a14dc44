"""Real training: DeepSpeed under Ray Train on a tiny model. However the work is divided, the numbers are the same."""

import json
import math
import os
import random
import re
import shutil
import sys
import threading
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

from offsft.config.loading import load
from offsft.errors import TrainingError
from offsft.storage.run_folder import RunFolder, read_recipe
from offsft.train.export_checkpoint import export_checkpoint
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.rows import Row, pack
from offsft.train.run import train

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("ray_session")]

RTOL = 2e-4
"""Relative tolerance for losses and gradient norms between two ways to divide the same float32 work."""


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
    """The run that all others must equal: one worker, no sharding, everything in one micro-batch."""
    from offsft.runtime.console import Console

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
    from offsft.train.batching import BatchPlan

    chosen = BatchPlan([row.tokens for row in rows], 4, 4096, 1, 0, 1).rows(0)
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
    """ZeRO-2 is compared below, where its workers end; all other cases in test_train_invariance.py."""
    overrides = ("train.zero_stage=3", "train.workers=2", "train.micro_batch_tokens=96")
    lines, folder, _, _ = run(tmp_path / "run", tiny_model, console, *overrides, "train.gradient_checkpointing=true")
    want, plain_folder, _, _ = plain
    for key in ("loss/objective", "loss/nll", "optim/grad_norm", "weight/mean", "weight/ess_share"):
        assert [line[key] for line in lines] == pytest.approx([line[key] for line in want], rel=RTOL), key
    got, expected = (load_file(f.model / "model.safetensors") for f in (folder, plain_folder))
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-2, atol=2e-3, msg=name)
    assert_the_checkpoint_gives_the_same_model(folder, tiny_model)


def assert_the_checkpoint_gives_the_same_model(folder, model):
    trained = {path.name: path.read_bytes() for path in folder.model.iterdir()}
    shutil.rmtree(folder.model)
    assert export_checkpoint(read_recipe(folder), folder, model).step == 3
    again = {path.name: path.read_bytes() for path in folder.model.iterdir()}
    assert again.keys() == trained.keys()
    assert [name for name in trained if again[name] != trained[name]] == []


def test_the_exported_model_is_whole_and_has_learnt(plain, tiny_model):
    _, folder, _, _ = plain
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder.model / name).read_bytes() == (Path(tiny_model) / name).read_bytes()
    assert_the_checkpoint_gives_the_same_model(folder, tiny_model)
    before, after = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (tiny_model, folder.model)
    )
    assert after.get_output_embeddings().weight is after.get_input_embeddings().weight
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


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
    assert_the_checkpoint_gives_the_same_model(folder, tiny_model)


def test_reference_and_gap_are_computed_once(tmp_path, tiny_model, console):
    overrides = ("train.objective.kind=kl", "train.workers=2", "train.gap_rows=4", "train.micro_batch_tokens=96")
    overrides = (*overrides, "train.held_out_rows=2", "train.held_out_every=1", "train.tensorboard=true")
    lines, folder, result, items = run(tmp_path / "run", tiny_model, console, *overrides)
    # Before the first step the policy equals its reference.
    assert lines[0]["weight/mean"] == pytest.approx(1, rel=1e-4)
    assert lines[0]["ratio/p10"] == lines[0]["ratio/p99"] == pytest.approx(1)
    assert lines[-1]["ratio/p99"] > 1.01
    kept = pyarrow.dataset.dataset(sorted(map(str, folder.reference.glob("*.parquet")))).to_table().to_pylist()
    trained = {row["id"]: len(row["logprobs"]) for row in kept}
    assert len(trained) == result["rows"] == len(items) - 2
    assert trained.items() <= {i["id"]: len(i["response_ids"]) for i in items}.items()
    for when in ("before", "after"):
        for responses in ("kept", "expert"):
            assert result["gap"][when][responses]["all"]["rows"] == 4
    before, after = (result["gap"][when]["kept"]["all"]["mean_logprob"] for when in ("before", "after"))
    assert before != after
    assert_the_held_out_rows_were_measured(folder, result)


def assert_the_held_out_rows_were_measured(folder, result):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    measured = [json.loads(line) for line in (folder.path / "held_out.jsonl").read_text().splitlines()]
    assert [line["step"] for line in measured] == [0, 1, 2]
    nlls = [line["held_out/nll/all"] for line in measured]
    assert nlls == [line["held_out/nll/self"] for line in measured]
    assert result["held_out"]["rows"] == result["held_out_rows"] == 2
    assert result["held_out"]["before"] == {"step": 0, "nll": {"self": nlls[0], "all": nlls[0]}}
    assert result["held_out"]["last"] == {"step": 2, "nll": {"self": nlls[2], "all": nlls[2]}}
    assert result["held_out"]["least"]["nll"]["all"] == min(nlls)
    events = EventAccumulator(str(folder.path / "tensorboard")).Reload().Scalars("held_out/nll/all")
    assert [(event.step, event.value) for event in events] == [(i, pytest.approx(nll)) for i, nll in enumerate(nlls)]


def test_weights_that_are_not_numbers_stop_before_the_first_step(tmp_path, tiny_model, console):
    broken = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        broken.get_parameter("model.norm.weight").fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "broken")
    message = r"the log-probs of this llama are not numbers: .*; fetch the model again, or set model.dtype=float32"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path / "run", str(tmp_path / "broken"), console, "train.workers=2")
    assert not (tmp_path / "run" / "model").exists()
    assert len(list((tmp_path / "run" / "logs").glob("train-*.log"))) == 2, "the workers were started again"


def test_adapters_checkpoints_hold_adapters_alone(tmp_path, tiny_model, console):
    overrides = ("train.lora.rank=2", "train.workers=2", "train.checkpoint_steps=1", "train.keep_checkpoints=1")
    for stage in (2, 3):
        _, folder, _, _ = run(tmp_path / f"run{stage}", tiny_model, console, *overrides, f"train.zero_stage={stage}")
        (checkpoint,) = (folder.checkpoints / "train").glob("checkpoint_*/")
        stored = sum(path.stat().st_size for path in checkpoint.rglob("*model_states.pt"))
        assert stored < (Path(tiny_model) / "model.safetensors").stat().st_size / 2, stage


def loop_that_hangs_once(config):
    """The real loop, but rank 0 hangs when step 2 is recorded and its checkpoint not yet written."""
    from offsft.train import phases, worker

    run_path = Path(config["spec"].logs).parent
    hung, counted = run_path / "hung", run_path / "checkpoints" / "train" / "checkpoint_manager_snapshot.json"
    save = worker._save

    def save_or_hang(engine, step, *rest):
        if step == 2 and not hung.exists() and os.environ["RANK"] == "0":
            hung.touch()
            while not counted.exists():  # Ray Train learns of a checkpoint only at its controller's next poll
                time.sleep(0.1)
            phases.pulse._stall_s = 0  # only now: on a busy machine all else may take long
            threading.Event().wait()
        save(engine, step, *rest)

    worker._save = save_or_hang
    return worker.train_loop(config)


def test_workers_of_which_one_hangs_leave_their_stacks_and_go_on_from_the_checkpoint(
    plain, tmp_path, tiny_model, console, monkeypatch
):
    # Pickled by value, since the workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("offsft.train.run.train_loop", loop_that_hangs_once)
    said = []
    monkeypatch.setattr(console, "say", said.append)
    overrides = ("train.zero_stage=2", "train.workers=2", "train.checkpoint_steps=1", "train.keep_checkpoints=1")
    lines, folder, result, _ = run(tmp_path / "run", tiny_model, console, *overrides)
    (line,) = said
    assert re.match(
        r"train: worker 0 on \S+ \(.+\) has shown no sign of life for \d+ s \(train.stall_s=0\), saving a checkpoint;"
        r" worker 1 \w+ing",
        line,
    )
    logs = [(folder.logs / f"train-{rank}.log").read_text() for rank in (0, 1)]
    assert "in save_or_hang" in logs[0]
    assert "in train_loop" in logs[1], "the other worker shows what it waited for"
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
    """The real loop, but the loss of step 2 is not finite."""
    from offsft.train import worker

    train_step = worker.train_step

    def broken(engine, rows, plan, step, *rest, **named):
        rows = [replace(row, weight=math.nan) for row in rows] if step == 1 else rows
        return train_step(engine, rows, plan, step, *rest, **named)

    worker.train_step = broken
    return worker.train_loop(config)


def test_two_workers_in_bfloat16_skip_as_many_steps_as_allowed_and_name_them(
    tmp_path, tiny_model, console, monkeypatch
):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("offsft.train.run.train_loop", loop_with_a_broken_step)
    overrides = ("train.workers=2", "model.dtype=bfloat16", "train.skip_steps=1")
    lines, folder, result, _ = run(tmp_path / "run", tiny_model, console, *overrides)
    assert [line["step"] for line in lines] == [1, 3]
    (skipped,) = (folder.path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped)["step"] == 2
    assert len(json.loads(skipped)["rows"]) == 4
    assert result["skipped_steps"] == 1
    weights = load_file(folder.model / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert weights["model.norm.weight"].dtype is torch.bfloat16
    assert_the_checkpoint_gives_the_same_model(folder, tiny_model)


def loop_whose_export_fails(config):
    """The real loop, but saving the model is refused."""
    from offsft.train import worker

    def refuse(*_):
        raise ValueError("these settings cannot be saved")

    worker.export = refuse
    return worker.train_loop(config)


def test_an_export_that_fails_costs_no_training_and_can_be_done_alone(tmp_path, tiny_model, console, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("offsft.train.run.train_loop", loop_whose_export_fails)
    message = (
        r"the export failed: ValueError: these settings cannot be saved; .*`python -m jobs.export_model run=.*/run`"
    )
    with pytest.raises(TrainingError, match=message):
        run(tmp_path / "run", tiny_model, console)
    assert starts(tmp_path / "run") == ["1"], "the workers were started again, to fail at the same place"
    folder = RunFolder(str(tmp_path / "run"))
    assert not folder.model.exists()
    assert export_checkpoint(read_recipe(folder), folder, tiny_model).step == 3
    assert AutoModelForCausalLM.from_pretrained(folder.model).generation_config.eos_token_id


def starts(run_path):
    """The step from which rank 0 trained, for each of its starts."""
    return re.findall(r"rank 0 of \d+: training from step (\d+)", (run_path / "logs" / "train-0.log").read_text())
