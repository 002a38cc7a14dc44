"""Ending the local cluster ends the recorded processes and no others."""

import json
import subprocess
import sys

import psutil
import pytest

from cluster import local
from cluster.networks import Loopback


@pytest.fixture
def process():
    """A process with a child process."""
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


LATE = "Exception: The current node timed out during startup."


@pytest.mark.parametrize(("word", "starts"), [(LATE, 5), ("ValueError: no such option", local._TRIES)])
def test_a_node_that_is_late_is_started_until_it_is_there_and_another_fault_soon_said(
    tmp_path, monkeypatch, word, starts
):
    cluster = local._Cluster(tmp_path, "", 0, 0, Loopback())
    started = []

    def spawn(self, name, node, arguments):
        started.append(name)
        (tmp_path / f"{name}.log").write_text(f"{word}\n")
        return len(started)

    monkeypatch.setattr(local._Cluster, "_spawn", spawn)
    monkeypatch.setattr(local, "_alive", lambda number: number == 5)
    monkeypatch.setattr(local._Cluster, "_nodes", lambda self: {self.network.address(1)})
    if word == LATE:
        cluster._start("head", 1, [])
    else:
        with pytest.raises(SystemExit, match="head did not start: ValueError: no such option"):
            cluster._start("head", 1, [])
    assert len(started) == starts
