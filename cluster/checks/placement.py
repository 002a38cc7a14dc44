"""Placement of engines on nodes with labels and GPUs: `python -m cluster.checks.placement FOLDER` prints JSON.

It is a separate process, since one process joins one Ray cluster.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from benchmarks.byte_tokenizer import byte_tokenizer
from benchmarks.ray_nodes import add_node
from cluster.checks.job import rewrite, write_problems
from offsft.config import TrainConfig
from offsft.config.loading import load
from offsft.runtime.console import Console
from offsft.runtime.placement import Need, shortage

ROOT = Path(__file__).resolve().parents[2]
NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


class Heard(Console):
    """A console that keeps its lines, without the pause between two."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def progress(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(
    folder: Path,
    name: str,
    problems: int,
    delay_s: float,
    *overrides: str,
    console: Heard | None = None,
    together: int = 1,
) -> dict:
    write_problems(folder / f"{name}.jsonl", problems)
    settings = [f"run={folder / name}", f"data.path={folder / name}.jsonl", "rewrite.commit_problems=2"]
    settings += [
        "rewrite.max_tokens=40",
        "verify.timeout_s=60",
        "rewrite.guards={support: null, first_support: null, bare: false}",
        "engine.concurrent_commits=1",
    ]
    console = console or Heard()
    result = rewrite(load(None, [*settings, *overrides]), str(folder / "model"), delay_s, console, together)
    engines = [json.loads(path.read_text()) for path in (folder / name / "engines").glob("*.json")]
    return {"problems": result["problems"], "engines": engines, "lines": console.lines}


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ["PYTHONPATH"] = str(ROOT)  # the nodes' workers import from here
    byte_tokenizer().save_pretrained(folder / "model")
    cluster = Cluster(
        initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False}, shutdown_at_exit=True
    )
    add_node(cluster, **NODE, num_gpus=2, labels={"group": "gpu"})
    add_node(cluster, **NODE, labels={"group": "spot"})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    told: dict = {"labelled": run(folder, "labelled", 6, 0.01, "engine.node_labels={group: spot}")}
    told["parallel"] = run(folder, "parallel", 6, 0.01, "engine.gpus=2", "engine.tensor_parallel=2")
    told["groups_left"] = sum(group["state"] != "REMOVED" for group in ray.util.placement_group_table().values())
    told["grown"] = run(folder, "grown", 40, 0.4, "engine.actors=1", "engine.actors_max=3", "engine.cpus=0.5")
    told["shortages"] = [
        shortage(Need.of_training(TrainConfig(workers=4, gpus_per_worker=1))),
        shortage(Need.of_training(TrainConfig(workers=5))),
        shortage(Need.of_training(TrainConfig(workers=2, cpus_per_worker=1.5, node_labels={"group": "spot"}))),
        shortage(Need.of_training(TrainConfig(workers=1, node_labels={"group": "gone"}))),
        shortage(Need.of_training(TrainConfig(workers=3, cpus_per_worker=1.2))),
        shortage(Need.of_training(TrainConfig(workers=4, cpus_per_worker=1))),
    ]

    console, over = Heard(), threading.Event()

    def join_late() -> None:
        while not over.wait(0.1) and not any("needs 4 GPUs" in line for line in console.lines):
            continue
        add_node(cluster, **NODE, num_gpus=2, labels={"group": "gpu"})

    late = threading.Thread(target=join_late)
    late.start()
    large = ("engine.actors=2", "engine.gpus=2", "engine.tensor_parallel=2")
    told["waiting"] = run(folder, "waiting", 6, 0.01, *large, console=console)
    over.set()
    late.join()
    print(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
