"""The share of training computation that is padding: `python -m benchmarks.padding [--json] gsm8k_train.jsonl`.

Reads GSM8K rows (`question`, `answer`), tokenises them as training does with the embedded model, and plans one epoch.
`padding_share` is the share of computed tokens that belong to no row; `padded_share` is the same if each micro-batch of
the rows were padded to its longest instead of packed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from offsft.config import Fields, PromptConfig
from offsft.data.formats import parse
from offsft.data.rows import RawRow, Rejected
from offsft.demo.model import embedded_model
from offsft.prompts import load_prompts
from offsft.train.batching import BatchPlan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--global-batch", type=int, default=256)
    parser.add_argument("--micro-batch-tokens", type=int, default=4096)
    arguments = parser.parse_args()
    lengths = row_lengths(arguments.rows)
    results = [
        {"ranks": ranks, **shares(lengths, arguments.global_batch, arguments.micro_batch_tokens, ranks)}
        for ranks in arguments.ranks
    ]
    found = {"rows": len(lengths), "tokens": sum(lengths), "plans": results}
    print(json.dumps(found) if arguments.json else "\n".join(map(str, [found["rows"], *results])))


def row_lengths(path: Path) -> list[int]:
    """Tokens of prompt and expert response per valid row."""
    prompts = load_prompts(str(embedded_model()), None, PromptConfig(), "auto")
    lengths = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        problem = parse(RawRow(path.name, number, line.encode()), "gsm8k", Fields())
        if isinstance(problem, Rejected):
            continue
        lengths.append(len(prompts.plain(problem)) + len(prompts.response(problem.solution)))
    return lengths


def shares(lengths: list[int], global_batch: int, micro_batch_tokens: int, ranks: int) -> dict[str, Any]:
    """The shares for one epoch, over all ranks."""
    plan = BatchPlan(lengths, global_batch, micro_batch_tokens, ranks, seed=0, epochs=1)
    rows = computed = padded = 0
    for step in range(plan.steps):
        for rank in range(ranks):
            for batch in plan.micro_batches(step, rank):
                own = sum(lengths[row] for row in batch)
                rows += own
                computed += own or 1
                padded += len(batch) * max((lengths[row] for row in batch), default=0)
    return {"padding_share": 1 - rows / computed, "padded_share": 1 - rows / padded}


if __name__ == "__main__":
    main()
