"""A real vLLM engine is killed while it works: the job starts another, and every problem is kept exactly once."""

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

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # two engines and more, one after another


def engine_cores(driver):
    """The processes of vLLM's engines among a driver's descendants. Ray's are its children or grandchildren."""
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
    few = ["data.generated_problems=6", "rewrite.commit_problems=2", "rewrite.max_tokens=32"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    driver = subprocess.Popen(
        [*command, *few, "rewrite.stages=[{kind: self, waves: [2]}, {kind: expert}]", "engine.concurrent_commits=1"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not list((run / "rewrites").glob("*.parquet")):
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.1)
    (engine,) = engine_cores(driver)
    engine.kill()
    printed = driver.communicate()[0]
    assert driver.returncode == 0, printed
    assert "Traceback" not in printed
    ids = [id for path in (run / "rewrites").glob("*.parquet") for id in pq.read_table(path)["id"].to_pylist()]
    assert len(set(ids)) == len(ids) == 6
    assert json.loads((run / "rewrite.json").read_text())["quarantined"] == 0
    logs = [path.read_text(errors="replace") for path in (run / "logs").glob("engine-*.log")]
    assert len(logs) == 2, "one engine's log and its successor's"
    assert any("the engine is dead; this actor exits" in log for log in logs)
