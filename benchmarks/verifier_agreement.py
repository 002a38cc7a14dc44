"""Agreement of the verifier with the labels of graded GSM8K solutions.

`python -m benchmarks.verifier_agreement gsm8k_graded_solutions.jsonl` (openai/grade-school-math: a row holds
`ground_truth` and model solutions with `is_correct`, each ending in a line such as `A: 18`). Exits with 1 if it
disagrees with a label.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Graded:
    """A model's solution of one row, with its label."""

    line: int
    model: str
    solution: str
    answer: str
    is_correct: bool


def read_graded(path: Path) -> Iterator[Graded]:
    """All graded solutions of a file."""
    with path.open(encoding="utf-8") as rows:
        for line, row in enumerate(map(json.loads, rows), start=1):
            answer = row["ground_truth"].rpartition("A:")[2].strip()
            for model, graded in row.items():
                if isinstance(graded, dict):
                    yield Graded(line, model, graded["solution"], answer, graded["is_correct"])


async def agreement(path: Path) -> dict[str, Any]:
    """`labels`, `agree`, `disagree` (a list), `seconds` of judging with the default verifier."""
    from offsft.config import VerifyConfig
    from offsft.records import Outcome, Problem
    from offsft.verify import open_verifier

    graded = list(read_graded(path))
    async with open_verifier(VerifyConfig()) as verifier:
        await verifier("\\boxed{1}", Problem("", "", "", "1"))  # so that start-up is not measured
        start = time.perf_counter()
        verdicts = await asyncio.gather(*(verifier(g.solution, Problem("", "", "", g.answer)) for g in graded))
        seconds = time.perf_counter() - start
    disagree = [
        {"line": g.line, "model": g.model, "answer": g.answer, "label": g.is_correct, "outcome": str(v.outcome)}
        | {"extracted": v.extracted}
        for g, v in zip(graded, verdicts, strict=True)
        if (v.outcome is Outcome.CORRECT) is not g.is_correct
    ]
    agree = len(graded) - len(disagree)
    return {"labels": len(graded), "agree": agree, "disagree": disagree, "seconds": round(seconds, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, metavar="PATH", help="gsm8k_graded_solutions.jsonl")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not arguments.path.is_file():
        parser.error(f"{arguments.path} is not a file; give the path of gsm8k_graded_solutions.jsonl")
    result = asyncio.run(agreement(arguments.path))
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['agree']} of {result['labels']} labels agreed with, in {result['seconds']} s")
        for each in result["disagree"]:
            print(f"  line {each['line']}, {each['model']}: label {each['label']}, verifier {each['outcome']}", end="")
            print(f" ({each['extracted']!r} for {each['answer']!r})")
    return 1 if result["disagree"] else 0


if __name__ == "__main__":
    sys.exit(main())
