"""Ending the local cluster ends the processes that were recorded, and no other."""

import json
import subprocess
import sys

import psutil
import pytest

from cluster import local


@pytest.fixture
def process():
    """A process with a child of its own."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(60)'])"
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert started.stdout.readline() == b"1\n"
    yield psutil.Process(started.pid)
    for child in psutil.Process(started.pid).children() if started.poll() is None else []:
        child.kill()
    started.kill()
    started.communicate()


def record(folder, process, started):
    temp = folder / "temp"
    temp.mkdir()
    state = folder / "state"
    state.mkdir()
    entry = {"id": process.pid, "started": started, "name": "head"}
    (state / "processes.json").write_text(json.dumps({"temp": str(temp), "processes": [entry]}))
    return state, temp


def test_a_recorded_process_ends_with_its_children(tmp_path, process, capsys, monkeypatch):
    monkeypatch.setattr(local, "_END_S", 1)  # the child does not end by itself
    state, temp = record(tmp_path, process, process.create_time())
    (child,) = process.children()
    local.down(state)
    assert not local._alive(child)
    assert not state.exists()
    assert not temp.exists()
    assert capsys.readouterr().out == "cluster: 1 node ended\n"


def test_a_process_that_only_has_the_id_of_a_recorded_one_is_left_alone(tmp_path, process, capsys):
    state, _ = record(tmp_path, process, process.create_time() - 100)
    local.down(state)
    assert process.is_running()
    assert capsys.readouterr().out == "cluster: none is running\n"


def test_a_second_cluster_is_refused(tmp_path, process):
    state, _ = record(tmp_path, process, process.create_time())
    with pytest.raises(SystemExit, match="one is running already"):
        local.up(state, 2)
    assert process.is_running()
