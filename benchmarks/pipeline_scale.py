"""Scaling of the rewriting with one head: `python -m benchmarks.pipeline_scale [--engines 1 4 16 64]
[--problems 200000] [--commit 16] [--json]`.

The real job (files, Ray Data, actors, cascade, verification, Parquet) with a sampler that has an engine's timing but no
engine (benchmarks/timed_engine.py). A machine has no room for 64 actors, so one actor stands for --per-actor engines.
The cost of an engine's rows to the driver, Ray and the verifiers is real, the number of processes is not. Prints:

`efficiency`           of N engines: rows per second over those of N engines that are never idle. Leaves out start and
                       end: the first and last tenth of the rows, or the rows in work at once if those are more
`rows_per_s_limit`     rows per second if answers take no time: this machine's limit, with everything on the same cores
`driver_rss_growth_mb` the driver's memory at the end of those --problems, minus that after the first tenth
`cpu_ms_per_row`       of the driver, the coordinator, the rest of the head (GCS, raylet, dashboard), the tasks that
                       read and write, the actors and their verifiers, including start and end: shows the bottleneck
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks.timed_engine import ROWS_PER_S, TOKENS, WAVE, Factory

ROOT = Path(__file__).resolve().parent.parent
ENGINE_PROBLEMS = 32
"""Problems in work per engine: four times those that keep it busy, since a commit waits for its last one."""
POINT_S = 60
"""Duration of the run for each number of engines, if they are never idle."""


@dataclass
class Watch:
    """A job's processes, sampled each second: the driver's memory and the CPU seconds of each kind of process."""

    process: psutil.Process
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    cpu_s: dict[int, tuple[str, float]] = field(default_factory=dict)

    def look(self) -> None:
        self.rss_mb.append((time.time(), self.process.memory_info().rss / 2**20))
        for process in (self.process, *self.process.children(recursive=True)):
            try:
                kind = "driver" if process == self.process else _kind(process)
                self.cpu_s[process.pid] = kind, sum(process.cpu_times()[:2])
            except psutil.Error:  # it has just ended
                continue

    def totals(self) -> dict[str, float]:
        totals: dict[str, float] = defaultdict(float)
        for kind, seconds in self.cpu_s.values():
            totals[kind] += seconds
        return dict(totals)


def _kind(process: psutil.Process) -> str:
    """The kind of a process: verifiers are children of their actor; `tasks` are Ray's processes that read and write."""
    titles = " ".join(" ".join(each.cmdline()[:1]) for each in (process, *process.parents()[:2]))
    if "MapBatches(RewriteActor)" in titles:
        return "actors" if process.cmdline()[:1] and "ray::" in process.cmdline()[0] else "verifiers"
    if "ray::Coordinator" in titles:
        return "coordinator"
    return "tasks" if "ray::" in titles else "head"


def measure(folder: Path, name: str, problems: int, actors: int, engines_each: int, commit: int) -> dict[str, Any]:
    """Run one job to its end: rows per second in the middle, the driver's memory, CPU seconds by kind."""
    run = folder / name
    run.mkdir()
    with (run / "p.jsonl").open("w") as file:
        for i in range(problems):
            file.write(json.dumps({"problem": f"What is {i} + 0?", "solution": f"{i} + 0 = \\boxed{{{i}}}"}) + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [
        sys.executable,
        "-m",
        "benchmarks.pipeline_scale",
        "--job",
        *map(str, (run, actors, engines_each, commit)),
    ]
    with (run / "driver.log").open("wb") as log:
        driver = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    watch, ended = Watch(psutil.Process(driver.pid)), threading.Event()

    def look() -> None:
        while not ended.wait(1.0):
            try:
                watch.look()
            except psutil.Error:
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        status = driver.wait()
    finally:
        ended.set()
        looking.join()
        driver.terminate()  # after an interruption; the driver ends its Ray
    if status:
        sys.exit(f"the job failed:\n{(run / 'driver.log').read_text()[-3000:]}")
    files = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in run.glob("rewrites/*.parquet"))
    assert sum(rows for _, rows in files) == problems
    in_work = actors * max(2 * commit, engines_each * ENGINE_PROBLEMS)
    done, middle = 0, []
    for at, rows in files:
        done += rows
        # Not while the engines fill up or run dry, when the rows begun differ from the rows written.
        if max(0.1 * problems, in_work) <= done <= problems - max(0.1 * problems, in_work):
            middle.append((at, rows))
    (begin, _), (end, _) = middle[0], middle[-1]
    return {
        "rows_per_s": sum(rows for _, rows in middle[1:]) / (end - begin),
        "driver_rss_growth_mb": watch.rss_mb[-1][1] - next(mb for at, mb in watch.rss_mb if at >= begin),
        "cpu_ms_per_row": {kind: 1e3 * seconds / problems for kind, seconds in watch.totals().items()},
    }


def job(run: Path, actors: int, engines_each: int, commit: int) -> None:
    """Run the driver."""
    from offsft.config.loading import load
    from offsft.rewrite.run import run_rewrite
    from offsft.runtime.console import Console
    from offsft.runtime.session import ray_session
    from offsft.storage.run_folder import RunFolder

    recipe = load(
        None,
        [
            f"run={run}",
            f"data.path={run / 'p.jsonl'}",
            f"rewrite.commit_problems={commit}",
            f"rewrite.stages.self.waves=[{WAVE}]",
            f"rewrite.stages.guided.waves=[{WAVE}]",
            f"rewrite.max_tokens={TOKENS}",
            f"model.context_tokens={4 * TOKENS}",
            f"engine.actors={actors}",
            "engine.cpus=0.25",
            f"engine.concurrent_commits={max(2, engines_each * ENGINE_PROBLEMS // commit)}",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
        ],
    )
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    with ray_session(recipe.cluster):
        run_rewrite(recipe, folder, str(run.parent / "tokenizer"), Console(), sampler_factory=Factory(engines_each))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="*", default=[1, 4, 16, 64], help="numbers of engines")
    parser.add_argument("--problems", type=int, default=200_000, help="of the run without delays (default 200000)")
    parser.add_argument("--per-actor", type=int, default=32, help="most engines that an actor stands for (default 32)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--commit", type=int, default=16, help="problems of one commit (default 16, as the setting's)")
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job(Path(arguments.job[0]), *map(int, arguments.job[1:]))
        return
    from benchmarks.byte_tokenizer import byte_tokenizer

    found: dict[str, Any] = {
        "engine_rows_per_s": ROWS_PER_S,
        "commit_problems": arguments.commit,
        "efficiency": {},
        "cpu_ms_per_row": {},
    }
    with tempfile.TemporaryDirectory(prefix="offsft-scale-") as name:
        folder = Path(name)
        byte_tokenizer().save_pretrained(folder / "tokenizer")
        for engines in arguments.engines:
            actors = -(-engines // arguments.per_actor)
            each = -(-engines // actors)
            rows = POINT_S * engines * ROWS_PER_S + 2 * engines * ENGINE_PROBLEMS
            problems = max(10, int(rows) // arguments.commit) * arguments.commit
            point = measure(folder, f"engines-{engines}", problems, actors, each, arguments.commit)
            found["efficiency"][engines] = point["rows_per_s"] / (actors * each * ROWS_PER_S)
            found["cpu_ms_per_row"][engines] = point["cpu_ms_per_row"]
            print(f"{engines} engines: {point}", file=sys.stderr, flush=True)
        if arguments.problems:
            point = measure(folder, "limit", arguments.problems, 2, 0, arguments.commit)
            found["cpu_ms_per_row"]["limit"] = point["cpu_ms_per_row"]
            found["rows_per_s_limit"] = point["rows_per_s"]
            found["driver_rss_growth_mb"] = point["driver_rss_growth_mb"]
            found["problems"] = arguments.problems
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
