"""Isolated nodes: each has a home, a temporary folder and a disk of its own, and all see the storage."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster import isolation
from cluster.isolation import Isolation, why_not, without_shared_caches


@pytest.fixture
def nodes(tmp_path):
    if reason := why_not():
        pytest.skip(reason)
    state, repository, storage = (tmp_path / name for name in ("state", "repository", "storage"))
    for folder in (state, repository, storage):
        folder.mkdir()
    (state / "token").write_text("secret")
    (repository / "code.py").write_text("")
    return Isolation.of(state, repository, storage)


def run(nodes, node, code):
    """What a Python program prints on a node."""
    command = [*nodes.inside(node), sys.executable, "-c", f"import pathlib; {code}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.needs("bwrap")
def test_nodes_share_the_storage_and_nothing_else(nodes):
    _, temporary, repository = nodes.hidden
    (storage,) = nodes.shared
    for place in (Path.home(), temporary, repository, storage):
        run(nodes, "head", f"pathlib.Path({str(place / 'mine')!r}).write_text('head')")
    there = run(
        nodes,
        "worker-1",
        f"print([pathlib.Path(p, 'mine').exists() for p in {[*map(str, nodes.hidden), str(storage)]}])",
    )
    assert there == "[False, False, False, True]"
    assert (nodes.home("head") / "mine").read_text() == "head"
    assert not (Path.home() / "mine").exists()
    assert not (Path(tempfile.gettempdir()) / "mine").exists()


@pytest.mark.needs("bwrap")
def test_a_node_sees_the_token_and_not_the_repository(nodes):
    token, code = nodes.visible[-1], nodes.hidden[-1] / "code.py"
    seen = run(nodes, "head", f"print([pathlib.Path(p).exists() for p in {[str(token), str(code)]}])")
    assert seen == "[True, False]"


def test_a_machine_without_bubblewrap_says_what_to_install(monkeypatch):
    monkeypatch.setattr(isolation.shutil, "which", lambda program: None)
    assert why_not() == "isolated nodes need bubblewrap, and there is no bwrap on the PATH (apt-get install bubblewrap)"


def test_a_machine_that_refuses_namespaces_says_so(monkeypatch):
    refused = subprocess.CompletedProcess([], 1, "", "bwrap: No permissions to create new namespace\n")
    monkeypatch.setattr(isolation.shutil, "which", lambda program: "/usr/bin/bwrap")
    monkeypatch.setattr(isolation.subprocess, "run", lambda *_, **__: refused)
    assert why_not() == (
        "isolated nodes need mount namespaces, which this machine refuses: bwrap: No permissions to create new namespace"
    )


def test_no_variable_leads_all_nodes_into_one_cache():
    kept = without_shared_caches({"HF_HOME": "/a", "OFFSFT_HOME": "/b", "PATH": "/bin"})
    assert kept == {"PATH": "/bin", "TMPDIR": tempfile.gettempdir()}
