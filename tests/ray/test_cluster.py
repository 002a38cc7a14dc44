"""Jobs submitted to a real cluster with a token: their environment, failures and stopping."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.dataset
import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from cluster import local
from cluster.checks.job import write_problems
from cluster.isolation import why_not

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray]


class Client:
    """A shell outside the cluster that has its address and token."""

    def __init__(self, state):
        exported = re.findall(r"(\w+)=(\S+)", (state / "env").read_text())
        others = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "OFFSFT_"))}
        self.environment = others | dict(exported)
        self.storage = state.parent / "storage"
        self.isolated = (state / "disks").exists()
        self.heads_home = state / "disks" / "head" / "home"
        """What the head, and no other node, sees as this user's home."""

    def ray(self, *arguments, environment=None):
        """Run `ray ARGUMENTS` in the repository's root; returns exit status and output, the client's log first."""
        command = [sys.executable, "-m", "ray.scripts.scripts", *arguments]
        environment = environment or self.environment
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr + done.stdout

    def submit(self, *command, options=(), folder="."):
        return self.ray("job", "submit", "--working-dir", str(folder), *options, "--", "python", "-m", *command)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A head and two workers that share nothing but `storage`, where relative runs lie, if this machine can isolate them."""
    folder = tmp_path_factory.mktemp("cluster")
    byte_tokenizer().save_pretrained(folder / "storage" / "model")
    write_problems(folder / "storage" / "p.jsonl", 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFSFT_STORAGE", str(folder / "storage"))
        local.up(folder / "state", 3, isolated=why_not() is None)
    client = Client(folder / "state")
    try:
        # A node that missed Ray's time limit was retried: the first try is also recorded, but has ended.
        processes = [process for process in local._recorded_processes(folder / "state") if local._alive(process)]
        family = [child for process in processes for child in process.children(recursive=True)]
        yield client
    finally:
        local.down(folder / "state")
    assert len(family) > 10
    assert not [process for process in (*processes, *family) if local._alive(process)], "all that was started has ended"
    assert not (folder / "state").exists()


def job(client, run, delay_s, *overrides, model=None):
    """The command of a scripted rewriting job."""
    settings = [f"run={run}", f"data.path={client.storage / 'p.jsonl'}", "rewrite.commit_problems=2"]
    settings += [
        "rewrite.max_tokens=40",
        "verify.timeout_s=60",
        "rewrite.guards={support: null, first_support: null, bare: false}",
        *overrides,
    ]
    return ["cluster.checks.job", str(model or client.storage / "model"), str(delay_s), *settings]


def rows(rewrites):
    return pyarrow.dataset.dataset(rewrites, format="parquet").to_table().to_pylist()


def test_a_submitted_job_finds_its_code_and_leaves_its_run_in_the_storage(client):
    status, printed = client.submit(*job(client, "runs/one", 0.01, "engine.node_labels={group: gpu}"))
    assert status == 0, printed
    assert "rewritten 12" in printed
    run = client.storage / "runs" / "one"
    assert len(list((run / "rewrites").glob("*.parquet"))) == 6
    (engine,) = [json.loads(path.read_text()) for path in (run / "engines").glob("*.json")]
    assert engine["labels"]["group"] == "gpu"
    uploaded = Path(engine["package"]).parent
    assert "working_dir_files" in uploaded.parts, "its workers took offsft from what was submitted"
    if client.isolated:  # as the worker sees it, below its own temporary folder
        below = uploaded.relative_to(tempfile.gettempdir())
        (uploaded,) = client.heads_home.parents[1].glob(f"worker-*/temporary/{below}")
    assert (uploaded / "jobs" / "recipes" / "demo.yaml").exists()
    left = {path.name for path in uploaded.iterdir()} & {".venv", ".git", "runs", ".cluster", ".hypothesis", "docs"}
    assert not left, f"{left} need not have been uploaded"


@pytest.fixture
def on_isolated_nodes(client):
    if reason := why_not():
        pytest.skip(reason)
    assert client.isolated


@pytest.fixture
def submitted(tmp_path):
    """A folder to submit, with this repository's code, problems and a model in it."""
    for name in ("offsft", "jobs", "cluster", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mine" / "data").mkdir(parents=True)
    write_problems(tmp_path / "mine" / "data" / "p.jsonl", 6)
    byte_tokenizer().save_pretrained(tmp_path / "mine" / "model")
    return tmp_path


@pytest.mark.usefixtures("on_isolated_nodes")
def test_relative_paths_of_a_submitted_job_lead_into_what_was_submitted_on_every_node(client, submitted):
    command = job(client, "runs/relative", 0.01, "data.path=[mine/data/*.jsonl]", model="mine/model")
    status, printed = client.submit(*command, folder=submitted)
    assert status == 0, printed
    assert "rewritten 6" in printed


@pytest.mark.usefixtures("on_isolated_nodes")
def test_a_job_that_cannot_work_on_a_node_ends_before_anything_starts_and_names_the_nodes(client):
    home = Path.home()
    byte_tokenizer().save_pretrained(client.heads_home / "model")
    status, printed = client.submit(*job(client, home / "mine", 0.01))
    assert status == 1, printed
    assert re.search(
        rf"error: run={home}/mine is not seen on the nodes 127.77.0.2 \(.+\), 127.77.0.3 \(.+\), which may get work; give"
        " it on storage that every node has mounted",
        printed,
    ), printed
    assert not list((client.heads_home / "mine").iterdir())
    status, printed = client.submit(*job(client, "runs/model", 0.01, model=home / "model"))
    assert status == 1, printed
    assert re.search(rf"error: model.path={home}/model is not there on the nodes 127.77.0.2 \(.+\), 127", printed), (
        printed
    )
    assert not (client.storage / "runs" / "model" / "problems").exists()


def test_a_failed_job_says_why_in_its_last_lines(client):
    status, printed = client.submit("jobs.rewrite", "run=runs/two", "data.path=/nowhere.jsonl")
    assert status == 1
    last = printed.strip().splitlines()[-12:]
    assert any("error: data.path" in line and "/nowhere.jsonl" in line for line in last), printed
    assert "Traceback" not in printed


def test_without_the_token_nothing_is_accepted(client):
    bare = {key: value for key, value in client.environment.items() if not key.startswith("RAY_AUTH")}
    wrong = bare | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    mark = client.storage / "was-run"
    for environment in (bare | {"RAY_AUTH_MODE": "disabled"}, wrong):
        status, printed = client.ray("job", "submit", "--", "touch", str(mark), environment=environment)
        assert status != 0, printed
        assert re.search(r"[Uu]nauthorized|[Aa]uthentication", printed), printed
    assert not mark.exists()


def test_a_stopped_job_keeps_what_it_has_finished(client):
    """Its problems lie on the head's disk alone: the driver reads them."""
    data = []
    if client.isolated:
        shutil.copy(client.storage / "p.jsonl", client.heads_home / "p.jsonl")
        data = [f"data.path={Path.home() / 'p.jsonl'}"]
    waves = "rewrite.stages.self.waves=[1]"
    command = job(client, "runs/three", 1.0, waves, "engine.concurrent_commits=1", *data)
    status, printed = client.submit(*command, options=["--no-wait", "--submission-id", "to-stop"])
    assert status == 0, printed
    rewrites = client.storage / "runs" / "three" / "rewrites"
    while not list(rewrites.glob("*.parquet")):
        time.sleep(0.5)
    status, printed = client.ray("job", "stop", "to-stop")
    assert status == 0, printed
    assert "stopped" in printed
    _, logs = client.ray("job", "logs", "to-stop")
    assert "stopped; the same command continues from here" in logs
    assert 0 < len(list(rewrites.glob("*.parquet"))) <= 6
    status, printed = client.submit(*job(client, "runs/three", 0.01, waves, "engine.actors=2", *data))
    assert status == 0, printed
    assert sorted(row["problem"] for row in rows(rewrites)) == sorted(
        f"{('self', 'guided', 'expert')[i % 3]} {i}" for i in range(12)
    )
    assert {row["source"] for row in rows(rewrites)} == {"self", "guided", "expert"}
