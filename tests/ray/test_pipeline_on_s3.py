"""The whole pipeline with problems, model and run on S3, nothing on this machine, failing requests and two kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import scripted_problems
from scripted_problems import scripted_sampler, write_problems

from offsft.config.loading import load
from offsft.models import download_model
from offsft.rewrite.run import run_rewrite
from offsft.storage.paths import at, dataset, parquet_files, write_bytes
from offsft.storage.run_folder import RunFolder

HERE = Path(__file__).parent
PROBLEMS = 24
STAGES = "rewrite,train,evaluate,report"

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.timeout(1800)]
ray.cloudpickle.register_pickle_by_value(scripted_problems)


def settings(run, base):
    """Settings of every job here; data and model lie below `base`."""
    return [
        *(
            f"run={run}",
            f"data.path={base}/p.jsonl",
            f"model.path={base}/tiny",
            "model.dtype=float32",
            "cluster.dashboard=false",
        ),
        *(
            "rewrite.commit_problems=4",
            "rewrite.max_tokens=40",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
            "engine.concurrent_commits=1",
        ),
        *("train.workers=1", "train.global_batch=8", "train.epochs=1", "train.checkpoint_steps=1"),
        *("train.gap_rows=4", "train.warmup=0"),
        *(f"evaluate.path={base}/held_out.jsonl", "evaluate.limit=6", "evaluate.max_tokens=40"),
    ]


class Machine:
    """An empty machine: its own working directory, home and temporary folder."""

    def __init__(self, folder, base):
        self.cwd, self._base = folder / "cwd", base
        self.cwd.mkdir(parents=True)
        self._environment = {
            **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
            "OFFSFT_HOME": str(folder / "home"),
        }

    def start(self, stages, run, *more):
        return subprocess.Popen(
            [sys.executable, str(HERE / "storage_job.py"), stages, *settings(run, self._base), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.cwd,
            env=self._environment | {"PYTHONPATH": str(HERE.parents[1])},
        )

    def run(self, stages, run, *more):
        process = self.start(stages, run, *more)
        out, _ = process.communicate()
        assert process.returncode == 0, out
        return out

    def kill_when(self, process, ready):
        while not ready():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()


def rows(folder):
    return sorted(dataset(folder).to_table().to_pylist(), key=lambda row: row["id"])


def test_a_pipeline_without_local_state_is_continued_elsewhere_and_equals_a_local_one(
    s3, s3_proxy, tiny_model, tmp_path, monkeypatch, console, ray_session
):
    write_problems(tmp_path / "p.jsonl", PROBLEMS)
    write_problems(tmp_path / "held_out.jsonl", 6, start=900)
    (tmp_path / "tiny").symlink_to(tiny_model)
    for name in ("p.jsonl", "held_out.jsonl"):
        write_bytes(at(f"{s3}/data/{name}"), (tmp_path / name).read_bytes())
    for file in Path(tiny_model).iterdir():
        write_bytes(at(f"{s3}/data/tiny/{file.name}"), file.read_bytes())
    run = at(f"{s3}/runs/one")
    s3_proxy.share = 0.02

    first = Machine(tmp_path / "first", f"{s3}/data")
    first.kill_when(first.start(STAGES, run), lambda: len(parquet_files(run / "rewrites")) >= 2)
    before = {row["id"]: row for row in rows(run / "rewrites")}
    assert 0 < len(before) < PROBLEMS

    write_bytes(run / "wait", b"")
    second = Machine(tmp_path / "second", f"{s3}/data")
    checkpoints = run / "checkpoints" / "train"
    second.kill_when(second.start(STAGES, run), lambda: (checkpoints / "checkpoint_manager_snapshot.json").exists())
    (run / "wait").unlink()

    third = Machine(tmp_path / "third", f"{s3}/data")
    told = third.run(f"{STAGES},gap", run, "gap.second.model=trained")
    assert "rewrite: already done" in told
    assert s3_proxy.told["503"] > 0
    assert s3_proxy.told["dropped"] > 0
    assert [list(machine.cwd.iterdir()) for machine in (first, second, third)] == [[], [], []]

    scored = json.loads((run / "gap" / "gap.json").read_text())
    assert {side["gap"]["all"]["rows"] for side in scored.values()} == {PROBLEMS}

    recipe = load(None, settings(tmp_path / "run", tmp_path))
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    run_rewrite(recipe, folder, str(tmp_path / "tiny"), console, sampler_factory=scripted_sampler)
    after = rows(run / "rewrites")
    policy = {"policy": after[0]["policy"]}
    assert after == [row | policy for row in rows(tmp_path / "run" / "rewrites")]
    assert len(after) == PROBLEMS
    assert all(row == before.get(row["id"], row) for row in after), "what was committed before the kill is kept"

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert "training from step 2 to 3" in (run / "logs" / "train-0.log").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["rewrite"]["problems"], summary["train"]["steps"], summary["evaluate"]["problems"]) == (24, 3, 6)
    assert "<html" in (run / "report.html").read_text()
    assert (run / "figures" / "gap.png").read_bytes()[:4] == b"\x89PNG"
    assert not (run / "lock.json").exists()

    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path / "home"))
    assert AutoModelForCausalLM.from_pretrained(download_model(str(run / "model"))).config.hidden_size == 64
