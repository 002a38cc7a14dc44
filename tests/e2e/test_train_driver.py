"""The training command itself: its driver is killed, its disk runs full, and the same command goes on."""

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

ROOT = Path(__file__).parents[2]
RTOL = 2e-4

pytestmark = pytest.mark.e2e


def prepare(run):
    """The rewrites that a training begins with: three steps of four."""
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


def start(run, model):
    settings = [
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
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("training_job.py")), *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def ended(job):
    printed = job.communicate(timeout=240)[0]
    return job.returncode, printed


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def first_steps(run):
    """The step from which rank 0 trained, each time that it was started."""
    return re.findall(r"rank 0 of \d+: training from step (\d+)", (run / "logs" / "train-0.log").read_text())


@pytest.fixture
def small_disk(tmp_path):
    """A disk that holds one checkpoint of the tiny model (1.6 MB) and not two."""
    disk = tmp_path / "full" / "checkpoints"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk of its own needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_killed_driver_and_a_full_disk_cost_nothing_that_was_saved(tmp_path, tiny_model, small_disk):
    killed, full = tmp_path / "killed", small_disk.parent
    for run in (killed, full):
        prepare(run)
    (killed / "wait").touch()

    job = start(killed, tiny_model)
    saved = killed / "checkpoints" / "train" / "checkpoint_manager_snapshot.json"
    end_s = time.monotonic() + 240
    while not saved.exists():  # Ray Train counts a checkpoint when its controller has heard of it
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < end_s, "no checkpoint was saved"
        time.sleep(0.2)
    job.kill()
    job.communicate(timeout=60)
    (killed / "wait").unlink()
    status, printed = ended(start(killed, tiny_model))
    assert status == 0, printed
    assert first_steps(killed) == ["1", "2"]

    status, printed = ended(start(full, tiny_model))
    assert status == 1, printed
    assert "error: the disk is full" in printed
    assert "Traceback" not in printed
    assert not (full / "model").exists()
    subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
    status, printed = ended(start(full, tiny_model))
    assert status == 0, printed
    assert first_steps(full) == ["1", "2"]

    assert [line["step"] for line in metrics(killed)] == [1, 2, 3]
    for key in ("step", "loss/objective", "loss/nll", "optim/grad_norm"):
        assert [line[key] for line in metrics(full)] == pytest.approx([line[key] for line in metrics(killed)], rel=RTOL)
    for run in (killed, full):
        assert (run / "model" / "model.safetensors").exists()
