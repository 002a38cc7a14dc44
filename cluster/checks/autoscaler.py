"""A job whose GPU the autoscaler must add: `python -m cluster.checks.autoscaler FOLDER` prints JSON.

Ray's own autoscaler runs with a head without CPUs; its provider starts the nodes on this machine, which Ray calls a
fake cluster. FOLDER is for the run and for the autoscaler's config.
"""

import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.byte_tokenizer import byte_tokenizer
from services.ingress import free_ports

ROOT = Path(__file__).resolve().parents[2]
HEAD_ID = "f" * 51 + "00000"
STORE_BYTES = 100 * 2**20
START_S = 120
COMMANDS = (
    "initialization",
    "setup",
    "head_setup",
    "worker_setup",
    "head_start_ray",
    "worker_start_ray",
)
"""Kinds of commands for which the launcher requires a list, even an empty one."""


def autoscaling(gcs_address: str) -> dict:
    """A config of the cluster launcher: at most two nodes with a GPU, none at the start."""
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 2, "GPU": 1, "object_store_memory": STORE_BYTES},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    }
    provider = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": gcs_address,
        "head_node_id": HEAD_ID,
        "launch_multiple": True,
    }
    return {
        "cluster_name": "autoscaled",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "available_node_types": kinds,
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{kind}_commands": [] for kind in COMMANDS},
    }


def started(folder: Path, temp: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start the head; returns its process and the address of its GCS."""
    from ray.util import get_node_ip_address

    host, (port,) = get_node_ip_address(), free_ports(1)
    config = folder / "autoscaling.yaml"
    config.write_text(yaml.safe_dump(autoscaling(f"{host}:{port}")))
    environment = (
        os.environ
        | {
            "AUTOSCALER_UPDATE_INTERVAL_S": "10",  # so that a job on a busy machine shows that it waits before its nodes are there
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "PYTHONPATH": str(ROOT),  # the nodes' workers import from here
        }
    )
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [f"--node-ip-address={host}", f"--temp-dir={temp}", f"--autoscaling-config={config}", "--num-cpus=0"]
    command += ["--num-gpus=0", f"--object-store-memory={STORE_BYTES}", "--include-dashboard=false"]
    command += ["--dashboard-agent-listen-port=0", "--disable-usage-stats"]
    with (folder / "head.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log), f"{host}:{port}"


def connect(head: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Connect to Ray once the head's log says that it is up."""
    import ray

    end_s = time.monotonic() + START_S
    while "Ray runtime started" not in log.read_text(errors="replace"):
        if head.poll() is not None or time.monotonic() > end_s:
            sys.exit(f"the head did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)


@contextmanager
def listening(need: Any) -> Iterator[set[str]]:
    """Collect a waiting job's messages during the block, more often than a job asks, since nodes come fast here."""
    from offsft.runtime.placement import waiting

    heard: set[str] = set()
    over = threading.Event()

    def listen() -> None:
        while not over.wait(0.05):
            heard.add(waiting(need, 0) or "")

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()


def end(head: subprocess.Popen[bytes]) -> None:
    """End the head and the nodes that its autoscaler started."""
    family = psutil.Process(head.pid).children(recursive=True)
    head.kill()  # a node that is asked to end would first drain for a long time
    head.wait()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=20)


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # before Ray is imported
    byte_tokenizer().save_pretrained(folder / "model")
    with tempfile.TemporaryDirectory(prefix="offsft-as-", ignore_cleanup_errors=True) as temp:
        head, address = started(folder, temp)
        try:
            connect(head, address, folder / "head.log")
            import ray

            from cluster.checks.placement import run
            from offsft.runtime.placement import Need

            with listening(Need(2, {"GPU": 1.0}, {})) as waits:
                told = run(folder, "autoscaled", 12, 0.3, "engine.actors=2", "engine.gpus=1", together=2)
            told["waits"] = sorted(waits)
            told["nodes"] = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
            ray.shutdown()
        finally:
            end(head)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
