"""Cost per row, file or id: `python -m benchmarks.unit_costs [--json]`, for the estimates in docs/scaling.md.

CPU time on one core and bytes, each measured alone in this process; rows have answers of 1,000 tokens and 8 attempts.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import Fields, PromptConfig
from offsft.data.intake import ParseProblems, Room, _raw_block
from offsft.data.reader import RowReader
from offsft.data.tables import REWRITE_SCHEMA, rewrite_row
from offsft.gap import gap_of_rewrites
from offsft.inference.batch_job import _ids, _rows
from offsft.prompts import load_prompts
from offsft.records import Attempt, Outcome, Rewrite

IDS = 1_000_000
FILES = 1_000
COMMIT = 64
TOKENS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="offsft-costs-") as folder:
        found = _ids_in_memory() | _files(Path(folder)) | _intake(Path(folder))
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value:.4g}" for key, value in found.items()))


def _ids_in_memory() -> dict[str, float]:
    before = _resident_bytes()
    seen = {md5(str(i).encode()).digest() for i in range(IDS)}
    set_bytes = (_resident_bytes() - before) / IDS
    names = [each.hex() for each in seen]
    del seen
    fixed = np.array([name.encode() for name in names], dtype=np.bytes_)
    unique_s, _ = _time_work(lambda: np.unique(fixed))
    # As Ray's convert_and_sort_checkpointed_ids does it.
    sort_s, objects = _time_work(lambda: np.sort(pa.array(names).to_numpy(zero_copy_only=False)))
    return {
        "intake_bytes_per_id": set_bytes,
        "complete_bytes_per_id": fixed.nbytes / IDS,
        "complete_s_per_million_ids": unique_s / IDS * 1e6,
        "ray_filter_bytes_per_id": objects.nbytes / IDS + sys.getsizeof(objects[0]),
        "ray_sort_s_per_million_ids": sort_s / IDS * 1e6,
    }


def _files(folder: Path) -> dict[str, float]:
    output, draw = folder / "rewrites", random.Random(0)
    output.mkdir()
    rows = [rewrite_row(_rewrite(i, draw), verifier="math", policy="p", prompt_version="v") for i in range(COMMIT)]
    table = pa.Table.from_pylist(rows, schema=REWRITE_SCHEMA)
    for i in range(FILES):
        pq.write_table(table, output / f"{i:06d}.parquet")
        if i == 49:
            gap_s, _ = _time_work(lambda: gap_of_rewrites(output, folder / "gap"))
    size = sum(path.stat().st_size for path in output.iterdir())
    rows_s, _ = _time_work(lambda: _rows(output))
    ids_s, _ = _time_work(lambda: _ids(output))
    return {
        "disk_bytes_per_row": size / FILES / COMMIT,
        "count_ms_per_file": rows_s / FILES * 1e3,
        "ids_ms_per_file": ids_s / FILES * 1e3,
        "gap_ms_per_row": gap_s / (50 * COMMIT) * 1e3,
    }


def _intake(folder: Path) -> dict[str, float]:
    byte_tokenizer().save_pretrained(folder / "tokenizer")
    rows = [{"problem": f"What is {i} + 0?", "solution": f"{i} + 0 = \\boxed{{{i}}}"} for i in range(256)]
    raw = _raw_block([{"file": "p", "line": i, "raw": json.dumps(row).encode()} for i, row in enumerate(rows)])
    reader = RowReader("own", Fields(), "math", held_out=False, column=None, why="")
    parse = ParseProblems(
        reader, Room(load_prompts(str(folder / "tokenizer"), None, PromptConfig(), "auto"), 4 * TOKENS, TOKENS)
    )
    parse(raw)
    parse_s, _ = _time_work(lambda: [parse(raw) for _ in range(8)])
    return {"parse_ms_per_row": parse_s / (8 * len(rows)) * 1e3}


def _rewrite(i: int, draw: random.Random) -> Rewrite:
    logprobs = [-draw.random() for _ in range(TOKENS)]
    return Rewrite(
        id=md5(str(i).encode()).hexdigest(),
        problem=f"What is {i} + 0?",
        answer=str(i),
        solution=f"{i} + 0 = \\boxed{{{i}}}",
        source="guided",
        response="r" * 3 * TOKENS,
        prompt_ids=[1] * 100,
        response_ids=[draw.randrange(30_000) for _ in range(TOKENS)],
        behavior_logprobs=logprobs,
        policy_logprobs=[each / 2 for each in logprobs],
        expert_ids=[1] * 20,
        expert_logprobs=[-0.1] * 20,
        expert_mean_logprob=-0.1,
        attempts=[Attempt("self", Outcome.WRONG, TOKENS, _text(draw)) for _ in range(8)],
        generated_tokens=8 * TOKENS,
    )


def _text(draw: random.Random) -> str:
    """An answer's text, with the average characters per token, of words that a file cannot deduplicate."""
    return " ".join(str(draw.randrange(1_000)) for _ in range(TOKENS))


def _time_work(work: Callable[[], Any]) -> tuple[float, Any]:
    """The CPU seconds and the result of `work`."""
    begin = time.process_time()
    made = work()
    return time.process_time() - begin, made


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
