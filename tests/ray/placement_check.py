"""Where engines go on a cluster of nodes with labels and GPUs: `python -m tests.ray.placement_check FOLDER` prints JSON.

A process of its own, since one process joins one Ray cluster.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from benchmarks.byte_tokenizer import byte_tokenizer
from benchmarks.ray_nodes import add_node
from offsft.config import Train
from offsft.console import Console
from offsft.placement import Need, shortage
from offsft.recipes import load
from tests.ray.cluster_job import rewrite, write_problems

ROOT = Path(__file__).resolve().parents[2]
NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


class Heard(Console):
    """A console whose lines are kept, without the pause between two."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def progress(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(folder: Path, name: str, problems: int, delay_s: float, *overrides: str) -> dict:
    write_problems(folder / f"{name}.jsonl", problems)
    settings = [f"run={folder / name}", f"data.path={folder / name}.jsonl", "rewrite.commit_problems=2"]
    settings += ["rewrite.max_tokens=40", "verify.timeout_s=60", "engine.concurrent_commits=1"]
    console = Heard()
    result = rewrite(load(None, [*settings, *overrides]), str(folder / "model"), delay_s, console)
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
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    told: dict = {"labelled": run(folder, "labelled", 6, 0.01, "engine.node_labels={group: spot}")}
    told["parallel"] = run(folder, "parallel", 6, 0.01, "engine.gpus=2", "engine.tensor_parallel=2")
    told["groups_left"] = sum(group["state"] != "REMOVED" for group in ray.util.placement_group_table().values())
    told["grown"] = run(folder, "grown", 40, 0.4, "engine.actors=1", "engine.actors_max=3", "engine.cpus=0.5")
    told["shortages"] = [
        shortage(Need.of_training(Train(workers=4, gpus_per_worker=1))),
        shortage(Need.of_training(Train(workers=5))),
        shortage(Need.of_training(Train(workers=2, cpus_per_worker=1.5, node_labels={"group": "spot"}))),
        shortage(Need.of_training(Train(workers=1, node_labels={"group": "gone"}))),
        shortage(Need.of_training(Train(workers=3, cpus_per_worker=1.2))),
        shortage(Need.of_training(Train(workers=4, cpus_per_worker=1))),
    ]

    def join_late() -> None:
        time.sleep(5)
        add_node(cluster, **NODE, num_gpus=2, labels={"group": "gpu"})

    late = threading.Thread(target=join_late)
    late.start()
    told["waiting"] = run(folder, "waiting", 6, 0.01, "engine.actors=2", "engine.gpus=2", "engine.tensor_parallel=2")
    late.join()
    print(json.dumps(told))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
