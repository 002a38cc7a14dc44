"""A real vLLM engine is killed at work: the job starts another, and every problem is there once."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


def engine_cores(driver):
    """The processes of vLLM's engines below a driver. Ray's processes are its children, or their children."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            found += [process] if "VLLM::EngineCore" in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found


def test_a_killed_engine_is_replaced_and_nothing_is_lost(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "jobs.rewrite", "jobs/recipes/demo.yaml", f"run={run}"]
    few = ["data.generated_problems=6", "rewrite.commit_problems=2", "rewrite.max_tokens=32", "rewrite.guided_waves=[]"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    driver = subprocess.Popen(
        [*command, *few, "rewrite.self_waves=[2]", "engine.concurrent_commits=1"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end_s = time.monotonic() + 300
    while not list((run / "rewrites").glob("*.parquet")):
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < end_s, "nothing was committed"
        time.sleep(0.1)
    (engine,) = engine_cores(driver)
    engine.kill()
    printed = driver.communicate(timeout=400)[0]
    assert driver.returncode == 0, printed
    assert "Traceback" not in printed
    ids = [id for path in (run / "rewrites").glob("*.parquet") for id in pq.read_table(path)["id"].to_pylist()]
    assert len(set(ids)) == len(ids) == 6
    assert json.loads((run / "rewrite.json").read_text())["quarantined"] == 0
    logs = [path.read_text(errors="replace") for path in (run / "logs").glob("engine-*.log")]
    assert len(logs) == 2, "one engine's log and its successor's"
    assert any("the engine is dead; this actor leaves" in log for log in logs)
