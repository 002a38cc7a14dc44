"""An engine's processes end with the process that started the engine, however that ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="watched on Linux only")

WORKER = """
import os
from offsft.inference.engines.lifeline import watch
print(os.getpid(), flush=True)
watch(0.05)
"""
CORE = """
import subprocess, sys, time
subprocess.Popen([sys.argv[1], "-c", sys.argv[2]])
time.sleep(60)
"""
OWNER = """
import os, subprocess, sys, time
core = subprocess.Popen([sys.argv[3], "-c", sys.argv[1], sys.executable, sys.argv[2]], executable=sys.executable)
print(core.pid, flush=True)
time.sleep(60)
"""


def start(title):
    """An owner, a core with this title below it, and a worker below that; returns the owner and the others' ids."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, CORE, WORKER, title],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert owner.stdout is not None
    core, worker = sorted(int(owner.stdout.readline()) for _ in range(2))
    return owner, [core, worker]


def lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(processes):
    end_s = time.monotonic() + 30
    while any(lives(process) for process in processes):
        assert time.monotonic() < end_s, "they outlived their owner"
        time.sleep(0.05)


def test_core_and_worker_end_with_their_owner():
    owner, engine = start("VLLM::EngineCore")
    time.sleep(0.3)
    assert all(lives(process) for process in engine)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_until_gone(engine)


def test_a_worker_without_a_core_ends_with_the_process_above_it_and_looks_no_further():
    owner, (above, worker) = start("python-of-a-user")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    time.sleep(0.5)
    assert lives(above), "a user's own process is not ended because its shell has gone"
    assert lives(worker)
    os.kill(above, signal.SIGKILL)
    wait_until_gone([above, worker])
