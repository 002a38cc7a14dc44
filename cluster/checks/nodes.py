"""A submitted job on four nodes, one killed on the way and one joining: `python -m cluster.checks.nodes [--loopback] [--model]`.

Each node has its own network namespace and address; --loopback uses `make cluster`'s network instead. The engine may
run only on nodes with one label: the node that runs it is killed, and the only other is the one that joins. The
rewrites are compared with those of a single node. Then two training processes on two nodes add up a tensor. With
--model the job is the demonstration with the embedded model instead, from problems to a trained model.
Prints the findings as one JSON object.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.byte_tokenizer import byte_tokenizer
from cluster import local
from cluster.checks.job import write_problems
from cluster.networks import Loopback, Namespaces

ROOT = Path(__file__).parents[2]
PROBLEMS = 24
PLACE = "engine.node_labels={group: spot}"
VICTIM = "worker-2"
"""The only node with that label, until another joins."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("--model", action="store_true")
    arguments = parser.parse_args()
    # So that this command ends its cluster even when it is ended early.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    network = Loopback() if arguments.loopback else Namespaces(f"offsft-{os.getpid()}")
    with tempfile.TemporaryDirectory(prefix="offsft-nodes-") as name:
        folder = Path(name)
        state = folder / "state"
        os.environ["OFFSFT_STORAGE"] = str(folder)
        stdout, sys.stdout = sys.stdout, sys.stderr  # the cluster's messages
        try:
            local.up(state, 4, network)
            found = _model(folder, network) if arguments.model else _scripted(folder, network)
        finally:
            local.down(state)
            sys.stdout = stdout
    print(json.dumps(found))


def _scripted(folder: Path, network: Loopback | Namespaces) -> dict[str, Any]:
    byte_tokenizer().save_pretrained(folder / "model")
    write_problems(folder / "p.jsonl", PROBLEMS)

    def job(run: Path, delay_s: float, *settings: str) -> list[str]:
        common = [f"data.path={folder / 'p.jsonl'}", "rewrite.commit_problems=2", "rewrite.max_tokens=40"]
        command = ["cluster.checks.job", str(folder / "model"), str(delay_s), f"run={run}", *common]
        return [
            *command,
            "rewrite.stages.self.waves=[1]",
            "rewrite.stages.guided.waves=[1]",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
            *settings,
        ]

    alone = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    alone["RAY_AUTH_MODE"] = "disabled"
    subprocess.run(
        [sys.executable, "-m", *job(folder / "one", 0.01)], cwd=ROOT, env=alone, check=True, stdout=sys.stderr
    )
    lost, printed = _through_a_death(
        folder, network, folder / "four", job(folder / "four", 1.0, "engine.concurrent_commits=1", PLACE)
    )
    log = folder / "process_group.log"
    grouped = _ended(_submit(folder, network, ["cluster.checks.process_group"], log), log)
    engines = [json.loads(path.read_text()) for path in sorted((folder / "four" / "engines").glob("*.json"))]
    one, four = (sorted(_rows(folder / run / "rewrites"), key=lambda row: row["id"]) for run in ("one", "four"))
    return {
        "problems": len(four),
        "done_when_killed": lost,
        "equal": one == four,
        "sources": sorted({row["source"] for row in four}),
        "engine_nodes": len({engine["node"] for engine in engines}),
        "process_group": json.loads(re.findall(r"process group: (.*)", grouped)[-1]),
        "waited": re.findall(r"lost its place: (needs [^\n,]*, nodes [^\n,]*)", printed)[:1],
    }


def _model(folder: Path, network: Loopback | Namespaces) -> dict[str, Any]:
    run = folder / "demo"
    settings = ["data.generated_problems=18", "evaluate.limit=20", "train.max_tokens=192", "train.placement=spread"]
    command = ["jobs.pipeline", "jobs/recipes/demo.yaml", f"run={run}", *settings, PLACE]
    lost, _ = _through_a_death(folder, network, run, command)
    summary = json.loads((run / "summary.json").read_text())
    return {
        "done_when_killed": lost,
        "rewrites": len(_rows(run / "rewrites")),
        "model": sorted(path.name for path in (run / "model").iterdir()),
        "summary": summary,
    }


def _through_a_death(folder: Path, network: Loopback | Namespaces, run: Path, job: list[str]) -> tuple[int, str]:
    """Submit, kill the engine's node after the first commit, let one join; returns the rows by then, and the output."""
    log = folder / "submitted.log"
    client = _submit(folder, network, job, log)
    try:
        while not list((run / "rewrites").glob("*.parquet")):
            _still(client, log)
        _kill(folder / "state", VICTIM)
        done = len(_rows(run / "rewrites"))
        # Once Ray considers the node dead, the job reports that it has no place.
        end_s = time.monotonic() + 90
        while "lost its place" not in log.read_text() and time.monotonic() < end_s:
            _still(client, log)
        local.join(folder / "state")
        return done, _ended(client, log)
    finally:
        client.terminate()
        client.wait()


def _submit(folder: Path, network: Loopback | Namespaces, job: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Run `ray job submit` on the cluster's own network, with its output in `log`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= dict(re.findall(r"(RAY_\w+)=(\S+)", (folder / "state" / "env").read_text()))
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."]
    command = [*network.client(), *submit, "--", "python", "-m", *job]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)


def _ended(client: subprocess.Popen[bytes], log: Path) -> str:
    """The output of a submitted job, once it has succeeded."""
    code = client.wait()
    printed = log.read_text(errors="replace")
    sys.stderr.write(printed)
    if code:
        sys.exit(f"the job ended with {code}")
    return printed


def _still(client: subprocess.Popen[bytes], log: Path) -> None:
    if client.poll() is not None:
        sys.exit(f"the job ended early, with {client.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    time.sleep(0.2)


def _kill(state: Path, name: str) -> None:
    """Kill a node as a power cut would."""
    tries = [entry for entry in local._read(state)["processes"] if entry["name"] == name]
    node = psutil.Process(tries[-1]["id"])
    for process in (node, *node.children(recursive=True)):
        process.kill()


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files except one that is being written or was left half-written by a kill."""
    rows = []
    for path in folder.glob("*.parquet"):
        with suppress(pa.ArrowInvalid):
            rows += pq.read_table(path).to_pylist()
    return rows


if __name__ == "__main__":
    main()
