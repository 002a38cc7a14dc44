"""The training command itself: its driver is killed, its disk fills up, and the same command continues."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import multiprocessing

from offsft.config.loading import load

ROOT = Path(__file__).parents[2]
RTOL = 2e-4

pytestmark = pytest.mark.e2e


def prepare(run):
    """Write the rewrites for a training of three steps of four rows."""
    rows = [
        {
            "id": f"{i:02d}",
            "source": "self",
            "prompt_ids": [i, 2 * i, 3],
            "response_ids": [*range(i, 2 * i + 5)],
            "expert_ids": [i, 5],
            "behavior_logprobs": [-1.0] * (i + 5),
        }
        for i in range(12)
    ]
    (run / "rewrites").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), run / "rewrites" / "a.parquet")
    (run / "rewrite.json").write_text("{}")


def settings_of(run, model):
    return [
        f"run={run}",
        f"model.path={model}",
        "model.dtype=float32",
        "train.max_tokens=96",
        "train.micro_batch_tokens=4096",
        "train.global_batch=4",
        "train.learning_rate=1e-2",
        "train.gap_rows=0",
        "train.checkpoint_steps=1",
        "train.max_failures=0",
        "cluster.dashboard=false",
    ]


def start(run, model):
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("training_job.py")), *settings_of(run, model)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def ended(job):
    printed = job.communicate()[0]
    return job.returncode, printed


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def first_steps(run):
    """The step from which rank 0 trained, for each of its starts."""
    return re.findall(r"rank 0 of \d+: training from step (\d+)", (run / "logs" / "train-0.log").read_text())


@pytest.fixture(autouse=True)
def no_extension_is_compiled(tmp_path, monkeypatch):
    """Checks that training on a CPU leaves the folder of torch's extensions unchanged, even with a compiler."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    yield
    assert not list((tmp_path / "extensions").rglob("*"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk with room for one checkpoint of the tiny model (1.6 MB) but not two."""
    disk = tmp_path / "full" / "checkpoints"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk of its own needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_killed_driver_and_a_full_disk_cost_nothing_that_was_saved(tmp_path, tiny_model, small_disk):
    """One training: killed once it has saved its first step, stopped by the full disk at its second, and ended."""
    run = small_disk.parent
    prepare(run)
    (run / "wait").touch()

    job = start(run, tiny_model)
    saved = run / "checkpoints" / "train" / "checkpoint_manager_snapshot.json"
    while not saved.exists():  # Ray Train counts a checkpoint once its controller has learned of it
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.2)
    job.kill()
    job.communicate()
    (run / "wait").unlink()

    status, printed = ended(start(run, tiny_model))
    assert status == 1, printed
    assert "error: the disk is full" in printed
    assert "Traceback" not in printed
    assert not (run / "model").exists()

    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    status, printed = ended(start(run, tiny_model))
    assert status == 0, printed
    assert first_steps(run) == ["1", "2", "2"]
    assert (run / "model" / "model.safetensors").exists()

    keys = ("step", "loss/objective", "loss/nll", "optim/grad_norm")
    steps = [tuple(line[key] for key in keys) for line in metrics(run)]
    for got, want in zip(steps, undisturbed(run, tiny_model, tmp_path / "undisturbed.json"), strict=True):
        assert got == pytest.approx(tuple(want), rel=RTOL)


def undisturbed(run, model, out):
    """Step, loss, nll and gradient norm of the same training in one go, in one process without Ray that writes them to `out`."""
    multiprocessing.spawn(train_in_one_go, (str(run), model, str(out)), nprocs=1)
    return json.loads(out.read_text())


def train_in_one_go(_, run, model, out):
    os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.group", rank=0, world_size=1)
    from transformers import AutoModelForCausalLM

    from offsft.train.batching import BatchPlan
    from offsft.train.engine import start_engine
    from offsft.train.loading import load_rows
    from offsft.train.worker import step_size, train_step

    recipe = load(None, settings_of(run, model))
    settings, rows = recipe.train, load_rows(Path(run) / "rewrites", recipe.train).rows
    plan = BatchPlan(rows.lengths_R, settings.global_batch, settings.micro_batch_tokens, 1, recipe.seed, 1)
    engine = start_engine(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), settings, "float32")
    steps = []
    for step in range(plan.steps):
        sums, _ = train_step(engine, rows, plan, step, 0, settings)
        normalizer = step_size(rows, plan, step).loss_normalizer
        steps.append([step + 1, sums.loss / normalizer, sums.nll / sums.tokens, sums.grad_norm])
    Path(out).write_text(json.dumps(steps))
