"""Checks that random faults lose no row: `python -m benchmarks.chaos [--faults 200] [--seed 0] [--json]`.

A local Ray cluster of several nodes rewrites generated problems with a scripted sampler, while engines, actors, nodes
and the driver are killed at random. A driver that ended is started again, as an operator would, until the data set is
done; then a new data set is begun, until all faults are spent. Prints:

`faults`             faults of each kind
`expected`           problems in the input
`lost`               of these, in neither rewrites nor quarantine
`duplicated`         of these, in the output more than once
`quarantined`        of these, in quarantine (no problem here is poison or is considered so, so it should be 0)
`tokens_paid_twice`  tokens sampled beyond those of the kept rewrites, which are `tokens_kept`
`equal`              whether the rewrites equal, field by field, those of an undisturbed run
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.dataset

from benchmarks.ray_nodes import add_node

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"engine": 9, "actor": 6, "node": 2, "driver": 3}
"""The kinds of faults, each with its frequency in 20 faults."""
WORKER_NODES = 3
PROBLEMS = 600
"""Problems per data set."""
PAUSE_S = (0.0, 1.0)
"""Shortest and longest time from the first rows written after a fault to the next fault."""
BURST = 0.25
"""Share of the faults that strike without waiting for rows, while the job still recovers from the last fault."""
TAKEN_S = 20
"""Time within which an engine must be at work again, to be killed."""
RAY = {"health_check_period_ms": 1000, "prestart_worker_first_driver": False}
"""Nodes are asked three times as often as by default: until a killed one is considered dead, there is little else to kill."""
STUCK_S = 300
"""Time without a written row after which the benchmark has failed."""


@dataclass
class Chaos:
    """The cluster, the running driver, and their faults."""

    folder: Path
    draw: random.Random
    to_come: list[str]
    """The kinds of the remaining faults, the next one last."""
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        from ray.cluster_utils import Cluster

        os.environ["PYTHONPATH"] = str(ROOT)  # the nodes' workers import from here
        node: Any = {"num_cpus": 2, "object_store_memory": 200 * 2**20}
        self._node = node
        head = node | {"include_dashboard": False, "_system_config": RAY}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._workers = [add_node(self._cluster, **node) for _ in range(WORKER_NODES)]

    def rewrite(self, name: str, problems: int, *, disturbed: bool) -> Path:
        """Rewrite one data set to its end, with or without faults; returns the run's folder."""
        run = self.folder / name
        while True:
            driver = self._driver(run, problems)
            files, heard_s = count(run / "rewrites"), time.monotonic()
            next_s: float | None = None  # not before rows are written
            while driver.poll() is None:
                time.sleep(0.1)
                now_s = time.monotonic()
                if (now_there := count(run / "rewrites")) > files:
                    files, heard_s = now_there, now_s
                    next_s = next_s or now_s + self.draw.uniform(*PAUSE_S)
                if now_s - heard_s > STUCK_S:
                    driver.kill()
                    raise SystemExit(f"stuck: no row for {STUCK_S} s; see {run / 'driver.log'}")
                if disturbed and self.to_come and next_s and now_s >= next_s:
                    struck = self._strike(run, driver)
                    again = not struck or self.draw.random() < BURST
                    next_s = time.monotonic() + self.draw.uniform(*PAUSE_S) if again else None
            if driver.returncode == 0:
                return run

    def close(self) -> None:
        self._cluster.shutdown()

    def _driver(self, run: Path, problems: int) -> subprocess.Popen[bytes]:
        run.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.chaos_job", str(run), str(problems)]
        environment = os.environ | {"RAY_ADDRESS": str(self._cluster.address)}
        with (run / "driver.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def _strike(self, run: Path, driver: subprocess.Popen[bytes]) -> bool:
        """Kill one of the next kind; False, with nothing counted, if none exists."""
        kind = self.to_come[-1]
        if kind == "engine":
            if not self._engine_taken(run / "kill-an-engine", driver):
                return False
        elif kind == "actor":
            named = "MapWorker(MapBatches(RewriteActor))"
            actors = [process for process in self._processes() if named in title(process)]
            if not actors:
                return False
            self.draw.choice(actors).kill()
        elif kind == "node":
            node = self._workers.pop(self.draw.randrange(len(self._workers)))
            self._cluster.remove_node(node, allow_graceful=False)
            self._workers.append(add_node(self._cluster, **self._node))
        else:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        self.faults[kind] += 1
        self.to_come.pop()
        print(f"{self.faults.total()}: {kind}", file=sys.stderr, flush=True)
        return True

    @staticmethod
    def _engine_taken(word: Path, driver: subprocess.Popen[bytes]) -> bool:
        """Whether a working engine took the request to die, and died."""
        word.touch()
        end_s = time.monotonic() + TAKEN_S
        while word.exists() and time.monotonic() < end_s and driver.poll() is None:
            time.sleep(0.05)
        try:
            word.unlink()
        except FileNotFoundError:
            return True
        return False

    def _processes(self) -> list[psutil.Process]:
        """All descendants of this process; other Ray instances on this machine are not touched."""
        return psutil.Process().children(recursive=True)


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def count(rewrites: Path) -> int:
    """Number of files; one is written at a time, and may be incomplete."""
    return len(list(rewrites.glob("*.parquet")))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(folder, format="parquet").to_table().to_pylist() if folder.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="faults in all (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of kinds, times and victims (default 0)")
    parser.add_argument("--problems", type=int, default=PROBLEMS, help=f"of one data set (default {PROBLEMS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="offsft-chaos-") as folder:
        found = measure(Path(folder), arguments.faults, arguments.seed, arguments.problems)
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    sys.exit(0 if found["equal"] else 1)


def measure(folder: Path, faults: int, seed: int, problems: int) -> dict[str, Any]:
    """Strike `faults` times and compare with an undisturbed run."""
    from benchmarks.chaos_job import prepare

    prepare(folder)
    started_s = time.monotonic()
    draw = random.Random(seed)
    chaos = Chaos(folder, draw, draw.choices(list(KINDS), list(KINDS.values()), k=faults))
    try:
        undisturbed = {
            row["id"]: row for row in rows_of(chaos.rewrite("undisturbed", problems, disturbed=False) / "rewrites")
        }
        runs = []
        while chaos.to_come:
            runs.append(chaos.rewrite(f"disturbed-{len(runs)}", problems, disturbed=True))
    finally:
        chaos.close()
    found: Counter[str] = Counter()
    equal = True
    for run in runs:
        rows, refused = rows_of(run / "rewrites"), rows_of(run / "quarantine")
        ids = Counter(row["id"] for row in rows)
        kept = sum(row["generated_tokens"] for row in rows)
        found["expected"] += len(undisturbed)
        found["lost"] += max(0, len(undisturbed.keys() - ids.keys()) - len(refused))
        found["duplicated"] += sum(number - 1 for number in ids.values())
        found["quarantined"] += len(refused)
        found["tokens_kept"] += kept
        found["tokens_paid_twice"] += sum(map(int, (run / "paid").read_text().split())) - kept
        equal &= {row["id"]: row for row in rows} == undisturbed
    keys = ("expected", "lost", "duplicated", "quarantined", "tokens_kept", "tokens_paid_twice")
    return {
        "faults": dict(chaos.faults),
        **{key: found[key] for key in keys},
        "equal": equal,
        "data_sets": len(runs),
        "seconds": round(time.monotonic() - started_s),
    }


if __name__ == "__main__":
    main()
