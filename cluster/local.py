"""A local cluster of several Ray nodes on this machine: `python -m cluster.local up [NODES] [--isolated]`, `join`, or `down`.

A head that runs no work and NODES - 1 workers (by default 4 nodes), all on loopback with separate ports and token
authentication; `join` starts one more worker. Its files are in .cluster/: the token, the processes' ids, the logs, and
`env`, which a shell sources to reach it. `down` ends the processes that are recorded there and nothing else. With
`--isolated` the nodes share nothing but the storage, as machines do (`cluster.isolation`).
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

from cluster.isolation import Isolation, is_wrapper, why_not, without_shared_caches
from cluster.networks import Loopback, Namespaces, Network, delete

ROOT = Path(__file__).resolve().parent.parent
_HOST = "127.0.0.1"
GROUPS = ("spot", "gpu")
"""Labels that the workers get in turn, as in cluster.yaml."""
_CPUS = 2
"""Logical cores per worker."""
_AGENTS = ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export")
_OBJECT_STORE_BYTES = 200 * 2**20
_START_S = 120
_TRIES = 3
_PATIENCE_S = 600
"""A node that only is late is started again for so long."""
_LATE = "timed out during startup"
"""Ray's words for a node that missed its limit."""
_END_S = 40


_ASK = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + sys.stdin.read()})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.write(opener.open(request, timeout=10).read().decode())
"""
"""Runs on the client's network; the token is not among its arguments, which all users can see."""


def up(state: Path, nodes: int, network: Network | None = None, *, isolated: bool = False) -> None:
    """Start the cluster, on loopback unless `network` says where; prints how to reach it.

    Raises:
        SystemExit: one is running already, a node does not start, or nodes cannot be isolated here.
    """
    if isolated and (reason := why_not()):
        raise SystemExit(f"cluster: {reason}")
    if any(_alive(process) for process in _recorded_processes(state)):
        raise SystemExit(f"cluster: one is running already; `. {state}/env` reaches it, `make cluster-down` ends it")
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True, mode=0o700)
    token = state / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Short: the paths of Unix sockets below it have at most 107 characters.
    temp = tempfile.mkdtemp(prefix="offsft-")
    cluster = _Cluster(state, temp, _free_port(), _free_port(8265), network or Loopback(), isolated)
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
    print(
        f"cluster: {nodes} nodes, {_CPUS * (nodes - 1)} logical cores; dashboard {address} (token: {_display_path(token)})"
    )
    print(f"    . {_display_path(state / 'env')}")
    print("    .venv/bin/ray job submit --working-dir . -- python -m jobs.pipeline jobs/recipes/demo.yaml")
    print("    make cluster-down")


def join(state: Path) -> str:
    """Start one more worker; returns its name.

    Raises:
        SystemExit: no cluster is running, or the node does not start.
    """
    record = _read(state)
    if not any(_alive(process) for process in _recorded_processes(state)):
        raise SystemExit("cluster: none is running that a node could join; `make cluster` starts one")
    network = Namespaces(record["namespaces"]) if record["namespaces"] else Loopback()
    ports = (record["temp"], record["port"], record["dashboard"])
    cluster = _Cluster(state, *ports, network, record["isolated"], record["processes"])
    number = 1 + max(int(entry["name"].partition("-")[2] or 0) for entry in record["processes"])
    cluster.start_worker(number)
    return f"worker-{number}"


def down(state: Path) -> None:
    """End the recorded processes and all that they started, and delete the cluster's files."""
    ours = [process for process in _recorded_processes(state) if _alive(process)]
    # Taken down first, since a child whose parent is gone can no longer be found.
    family = [child for process in ours for child in process.children(recursive=True)]
    nodes = [child for process in ours if is_wrapper(process) for child in process.children()]
    for process in (*ours, *nodes):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    left = _still_running([*ours, *family])
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _still_running(left)
    record = _read(state)
    if record:
        if record.get("namespaces"):
            delete(record["namespaces"])
        shutil.rmtree(record["temp"], ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)
    count = "1 node" if len(ours) == 1 else f"{len(ours)} nodes"
    print(f"cluster: {count} ended" if ours else "cluster: none is running")


def storage(*, isolated: bool) -> Path:
    """Where relative runs lie: OFFSFT_STORAGE, else where they would without a cluster, or in `runs/` of isolated nodes."""
    return Path(os.environ.get("OFFSFT_STORAGE", ROOT / "runs" if isolated else ROOT))


def _environment(token: Path, *, isolated: bool) -> dict[str, str]:
    shapes = yaml.safe_load((ROOT / "cluster" / "shapes.yaml").read_text(encoding="utf-8"))
    others = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    if isolated:
        others = without_shared_caches(others)
    return others | {
        # `python` in a submitted command is this one.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_JOB_STOP_WAIT_TIME_S": str(shapes["stop_wait_s"]),
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",  # see offsft.runtime.session
        "RAY_worker_niceness": "0",
        "OFFSFT_STORAGE": str(storage(isolated=isolated)),
    }


@dataclass
class _Cluster:
    """A cluster that is being started: nodes one after another, since Ray gives each 30 seconds."""

    state: Path
    temp: str
    port: int
    dashboard: int
    network: Network
    isolated: bool = False
    processes: list[dict[str, Any]] = field(default_factory=list)

    def start_head(self) -> None:
        head = ["--head", f"--port={self.port}", "--num-cpus=0", "--include-dashboard=true"]
        head += [f"--dashboard-host={self.network.dashboard}", f"--dashboard-port={self.dashboard}"]
        self._start("head", 1, [*head, f"--ray-client-server-port={_free_port()}"])

    def start_worker(self, number: int) -> None:
        """Start a worker; `number` counts them from 1."""
        address = f"--address={self.network.address(1)}:{self.port}"
        labels = f"--labels=group={GROUPS[number % 2]}"
        self._start(f"worker-{number}", number + 1, [address, f"--num-cpus={_CPUS}", labels])

    def _start(self, name: str, node: int, arguments: list[str]) -> None:
        """Start one node, with retries: on a busy machine a node misses Ray's own limit, 30 s, again and again.

        Raises:
            SystemExit: it did not start; with the last line of Ray's log.
        """
        tries, patient_until_s = 0, time.monotonic() + _PATIENCE_S
        while True:
            process = self._spawn(name, node, arguments)
            end_s = time.monotonic() + _START_S
            while _alive(process) and time.monotonic() < end_s:
                if self.network.address(node) in self._nodes():
                    return
                time.sleep(0.5)
            log = (self.state / f"{name}.log").read_text(errors="replace").strip().splitlines() or ["it left no word"]
            tries += 1
            is_late = _LATE in log[-1] and time.monotonic() < patient_until_s
            if tries >= _TRIES and not is_late:
                raise SystemExit(f"cluster: {name} did not start: {log[-1]}")

    def _spawn(self, name: str, node: int, arguments: list[str]) -> psutil.Process:
        """Run `ray start`, which stays and ends its node's processes with itself; its id is recorded at once."""
        common = ["--block", "--disable-usage-stats", f"--node-ip-address={self.network.address(node)}"]
        common += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        # For ports that are not given Ray waits, and not long enough for a busy machine.
        common += [f"--{agent}-port={_free_port()}" for agent in _AGENTS]
        # In one folder, each node would delete and unpack a job's code while another's processes import it.
        common.append(f"--temp-dir={self.temp}" if node == 1 else f"--temp-dir={self.temp}/{node}")
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *common]
        own = Isolation.of(self.state, ROOT, storage(isolated=True)).inside(name) if self.isolated else []
        command = [*self.network.inside(node), *own, *ray]
        environment = _environment(self.state / "token", isolated=self.isolated)
        with (self.state / f"{name}.log").open("ab") as log:
            process = psutil.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append({"id": process.pid, "started": process.create_time(), "name": name})
        record = {"temp": self.temp, "port": self.port, "dashboard": self.dashboard}
        record |= {"namespaces": self.network.namespaces, "isolated": self.isolated, "processes": self.processes}
        (self.state / "processes.json").write_text(json.dumps(record, indent=2) + "\n")
        return process

    def _nodes(self) -> set[str]:
        """Addresses of the live nodes by the dashboard; none while it does not answer."""
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


def _recorded_processes(state: Path) -> list[psutil.Process]:
    """The recorded processes that still exist; the id of an ended one may have been reused."""
    found: list[psutil.Process] = []
    for entry in _read(state).get("processes", []):
        try:
            process = psutil.Process(entry["id"])
        except psutil.NoSuchProcess:
            continue
        if process.create_time() == entry["started"]:
            found.append(process)
    return found


def _still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that have not ended in time; a zombie counts as ended."""
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
    """The wanted port, or any free one if it is taken."""
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, wanted))
        except OSError:
            return _free_port()
        return probe.getsockname()[1]


def _display_path(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> None:
    arguments = [each for each in sys.argv[1:] if each != "--isolated"]
    isolated = len(arguments) < len(sys.argv[1:])
    match arguments:
        case ["up"]:
            up(_state(), 4, isolated=isolated)
        case ["up", nodes] if nodes.isdecimal() and int(nodes) > 1:
            up(_state(), int(nodes), isolated=isolated)
        case ["join"] if not isolated:
            print(f"cluster: {join(_state())} has joined")
        case ["down"] if not isolated:
            down(_state())
        case _:
            raise SystemExit("usage: python -m cluster.local up [NODES, at least 2] [--isolated] | join | down")


def _state() -> Path:
    return Path(os.environ.get("OFFSFT_LOCAL_CLUSTER", ROOT / ".cluster")).resolve()


if __name__ == "__main__":
    main()
