"""Memory of the training rows per rank: `python -m benchmarks.training_rows [--json] [--rows 1000000]`.

Writes random rewrites to a temporary folder (about 8 bytes per token), then in a separate process reads them as
training does and packs the first steps. `ratio` is the growth of the process's peak resident memory over 4 bytes per
token id; `is` also reads the behaviour log-probs, `dft` does not.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offsft.config import TrainConfig

_FILE_ROWS = 50_000
_PROMPT_SHARE = 5
"""One in this number of tokens belongs to the prompt."""
_PROCESSES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=500, help="per row")
    parser.add_argument("--steps", type=int, default=200, help="steps that are packed after reading")
    parser.add_argument("--objectives", nargs="+", default=["dft", "is"])
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure), arguments.objectives[0], arguments.tokens, arguments.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_rewrites(Path(folder), arguments.rows, arguments.tokens)
        results = [in_own_process(folder, objective, arguments) for objective in arguments.objectives]
    found = {"rows": arguments.rows, "tokens": arguments.rows * arguments.tokens, "results": results}
    print(json.dumps(found) if arguments.json else "\n".join(map(str, results)))


def write_rewrites(folder: Path, rows: int, tokens: int) -> None:
    """Write random rows in the layout of `rewrites/`, as far as training reads it."""
    draw = np.random.default_rng(0)
    prompt = tokens // _PROMPT_SHARE
    for start in range(0, rows, _FILE_ROWS):
        n = min(_FILE_ROWS, rows - start)
        names = [f"{number:016x}" for number in draw.integers(2**63, size=n)]
        columns = {
            "id": pa.array(names),
            "source": pa.array(["self"] * n),
            "prompt_ids": _lists(draw.integers(150_000, size=n * prompt, dtype=np.int32), prompt),
            "response_ids": _lists(draw.integers(150_000, size=n * (tokens - prompt), dtype=np.int32), tokens - prompt),
            "behavior_logprobs": _lists(-draw.random(n * (tokens - prompt), dtype=np.float32), tokens - prompt),
        }
        pq.write_table(pa.table(columns), folder / f"{start:09d}.parquet")


def _lists(values: np.ndarray, length: int) -> pa.Array:
    offsets = np.arange(0, len(values) + 1, length, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def in_own_process(folder: str, objective: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run `measure` in a process where nothing else has used memory."""
    command = [sys.executable, "-m", "benchmarks.training_rows", "--measure", folder, "--objectives", objective]
    command += ["--tokens", str(arguments.tokens), "--steps", str(arguments.steps)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(folder: Path, objective: str, tokens: int, steps: int) -> dict[str, Any]:
    """Read the rows, plan and pack; returns the peak memory above that after the imports."""
    from offsft.train.batching import BatchPlan
    from offsft.train.loading import load_rows
    from offsft.train.rows import pack

    settings = TrainConfig.model_validate(
        {"objective": {"kind": objective}, "max_tokens": tokens, "micro_batch_tokens": 8 * tokens, "global_batch": 256}
    )
    before = _memory("VmRSS")
    started_s = time.monotonic()
    rows = load_rows(folder, settings).rows
    read_s = time.monotonic() - started_s
    plan = BatchPlan(rows.lengths_R, settings.global_batch, settings.micro_batch_tokens, _PROCESSES, 0, 1)
    started_s = time.monotonic()
    for step in range(min(steps, plan.steps)):
        for batch in plan.micro_batches(step, 0):
            pack(rows, batch)
    grown = _memory("VmHWM") - before
    ids = 4 * int(rows.lengths_R.sum())
    return {
        "objective": objective,
        "ids_mib": round(ids / 2**20),
        "peak_mib": round(grown / 2**20),
        "ratio": round(grown / ids, 3),
        "read_s": round(read_s, 1),
        "pack_ms_per_step": round(1000 * (time.monotonic() - started_s) / min(steps, plan.steps), 1),
    }


def _memory(name: str) -> int:
    """Memory of this process in bytes: `VmRSS` now, `VmHWM` at the peak."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
