"""Several Ray nodes on this machine, as a cluster has them: `python -m cluster.local up [NODES]`, `join`, or `down`.

A head that runs no work and NODES - 1 workers (4 nodes unless said), all on loopback with ports of their own and token
authentication; `join` starts one more worker. What belongs to it is in .cluster/: the token, the processes' ids, the logs,
and `env`, which a shell sources to reach it. `down` ends the processes that are written there and nothing else.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from cluster.networks import Loopback, Namespaces, Network, delete

ROOT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"
GROUPS = ("spot", "gpu")
"""Labels of the workers, in turn, as cluster.yaml's."""
_CPUS = 2
"""Logical cores of a worker."""
_AGENTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
_OBJECT_STORE_BYTES = 200 * 2**20
_START_S = 120
_TRIES = 3
_END_S = 40


_ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.stdin.read()})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.write(opener.open(request, timeout=10).read().decode())
"""
"""Run where a client would be; the token is not among its arguments, which all can see."""


def up(state: Path, nodes: int, network: Network | None = None) -> None:
    """Start the cluster, on loopback unless `network` says where; prints how to reach it.

    Raises:
        SystemExit: one is running already, or a node does not start.
    """
    if any(_alive(process) for process in _recorded(state)):
        raise SystemExit(f"cluster: one is running already; `. {state}/env` reaches it, `make cluster-down` ends it")
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True, mode=0o700)
    token = state / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Short: the paths of Unix sockets below it have at most 107 characters.
    temp = tempfile.mkdtemp(prefix="offsft-")
    cluster = _Cluster(state, temp, _free_port(), _free_port(8265), network or Loopback())
    try:
        cluster.start_head()
        for number in range(1, nodes):
            cluster.start_worker(number)
    except BaseException:
        down(state)
        raise
    address = f"http://{cluster.network.dashboard}:{cluster.dashboard}"
    (state / "env").write_text(
        f"export RAY_API_SERVER_ADDRESS={address} RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}\n"
    )
    print(f"cluster: {nodes} nodes, {_CPUS * (nodes - 1)} logical cores; dashboard {address} (token: {_shown(token)})")
    print(f"    . {_shown(state / 'env')}")
    print("    .venv/bin/ray job submit --working-dir . -- python -m jobs.pipeline jobs/recipes/demo.yaml")
    print("    make cluster-down")


def join(state: Path) -> str:
    """Start one more worker; returns its name.

    Raises:
        SystemExit: no cluster is running, or the node does not start.
    """
    record = _read(state)
    if not any(_alive(process) for process in _recorded(state)):
        raise SystemExit("cluster: none is running that a node could join; `make cluster` starts one")
    network = Namespaces(record["namespaces"]) if record["namespaces"] else Loopback()
    cluster = _Cluster(
        state, record["temp"], record["port"], record["dashboard"], network, processes=record["processes"]
    )
    number = 1 + max(int(entry["name"].partition("-")[2] or 0) for entry in record["processes"])
    cluster.start_worker(number)
    return f"worker-{number}"


def down(state: Path) -> None:
    """End the recorded processes and all that they started, and delete the cluster's files."""
    ours = [process for process in _recorded(state) if _alive(process)]
    # Taken down first, since a child whose parent is gone can no longer be found.
    family = [child for process in ours for child in process.children(recursive=True)]
    for process in ours:
        process.terminate()
    left = _left([*ours, *family])
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _left(left)
    record = _read(state)
    if record:
        if record.get("namespaces"):
            delete(record["namespaces"])
        shutil.rmtree(record["temp"], ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)
    nodes = "1 node" if len(ours) == 1 else f"{len(ours)} nodes"
    print(f"cluster: {nodes} ended" if ours else "cluster: none is running")


def _environment(token: Path) -> dict[str, str]:
    shapes = yaml.safe_load((ROOT / "cluster" / "shapes.yaml").read_text(encoding="utf-8"))
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return others | {
        # `python` in a submitted command is this one.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_JOB_STOP_WAIT_TIME_S": str(shapes["stop_wait_s"]),
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        # All nodes are this machine: runs lie where they would without a cluster.
        "OFFSFT_STORAGE": os.environ.get("OFFSFT_STORAGE", str(ROOT)),
    }


@dataclass
class _Cluster:
    """A cluster that is being started: nodes one after another, since Ray gives each 30 seconds."""

    state: Path
    temp: str
    port: int
    dashboard: int
    network: Network
    processes: list[dict[str, Any]] = field(default_factory=list)

    def start_head(self) -> None:
        head = ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=true"]
        head += [f"--dashboard-host={self.network.dashboard}", f"--dashboard-port={self.dashboard}"]
        self._start("head", 1, [*head, f"--ray-client-server-port={_free_port()}"])

    def start_worker(self, number: int) -> None:
        """`number` counts the workers from 1."""
        address = f"--address={self.network.address(1)}:{self.port}"
        labels = f"--labels=group={GROUPS[number % 2]}"
        self._start(f"worker-{number}", number + 1, [address, f"--num-cpus={_CPUS}", labels])

    def _start(self, name: str, node: int, arguments: list[str]) -> None:
        """One node. On a busy machine a node can miss Ray's time limit; it is tried again.

        Raises:
            SystemExit: it did not start; with Ray's last word.
        """
        for _ in range(_TRIES):
            process = self._spawn(name, node, arguments)
            end_s = time.monotonic() + _START_S
            while _alive(process) and time.monotonic() < end_s:
                if self.network.address(node) in self._nodes():
                    return
                time.sleep(0.5)
        log = (self.state / f"{name}.log").read_text(errors="replace").strip().splitlines() or ["it left no word"]
        raise SystemExit(f"cluster: {name} did not start: {log[-1]}")

    def _spawn(self, name: str, node: int, arguments: list[str]) -> psutil.Process:
        """`ray start`, which stays and ends its node's processes with itself; its id is recorded at once."""
        common = ["--block", "--disable-usage-stats", f"--node-ip-address={self.network.address(node)}"]
        common += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        # Ports that are not said Ray waits for, and not long enough for a busy machine.
        common += [f"--{agent}-port={_free_port()}" for agent in _AGENTS]
        # In one folder, each node would delete and unpack a job's code while another's processes import it.
        common.append(f"--temp-dir={self.temp}" if node == 1 else f"--temp-dir={self.temp}/{node}")
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *common]
        command, environment = [*self.network.inside(node), *ray], _environment(self.state / "token")
        with (self.state / f"{name}.log").open("ab") as log:
            process = psutil.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append({"id": process.pid, "started": process.create_time(), "name": name})
        record = {"temp": self.temp, "port": self.port, "dashboard": self.dashboard}
        record |= {"namespaces": self.network.namespaces, "processes": self.processes}
        (self.state / "processes.json").write_text(json.dumps(record, indent=2) + "\n")
        return process

    def _nodes(self) -> set[str]:
        """Addresses of the nodes that are alive, as the dashboard says; none while it does not answer."""
        url = f"http://{self.network.dashboard}:{self.dashboard}/nodes?view=summary"
        command = [*self.network.client(), sys.executable, "-I", "-c", _ASK, url]
        token = (self.state / "token").read_text()
        asked = subprocess.run(command, input=token, capture_output=True, text=True, check=False)
        if asked.returncode:
            return set()  # it is not up yet
        nodes = json.loads(asked.stdout)["data"]["summary"]
        raylets = [node["raylet"] for node in nodes]
        return {raylet["nodeManagerAddress"] for raylet in raylets if raylet.get("state") == "ALIVE"}


def _read(state: Path) -> dict[str, Any]:
    path = state / "processes.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _recorded(state: Path) -> list[psutil.Process]:
    """The recorded processes that are there; an ended one's id may be another's by now."""
    found: list[psutil.Process] = []
    for entry in _read(state).get("processes", []):
        try:
            process = psutil.Process(entry["id"])
        except psutil.NoSuchProcess:
            continue
        if process.create_time() == entry["started"]:
            found.append(process)
    return found


def _left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended in time. What has ended counts even where nobody collects it."""
    end_s = time.monotonic() + _END_S
    while any(_alive(process) for process in processes) and time.monotonic() < end_s:
        time.sleep(0.1)
    return [process for process in processes if _alive(process)]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port(wanted: int = 0) -> int:
    """The wanted port, or any where that is taken."""
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, wanted))
        except OSError:
            return _free_port()
        return probe.getsockname()[1]


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> None:
    match sys.argv[1:]:
        case ["up"]:
            up(_state(), 4)
        case ["up", nodes] if nodes.isdecimal() and int(nodes) > 1:
            up(_state(), int(nodes))
        case ["join"]:
            print(f"cluster: {join(_state())} has joined")
        case ["down"]:
            down(_state())
        case _:
            raise SystemExit("usage: python -m cluster.local up [NODES, at least 2] | join | down")


def _state() -> Path:
    return Path(os.environ.get("OFFSFT_LOCAL_CLUSTER", ROOT / ".cluster")).resolve()


if __name__ == "__main__":
    main()
