"""Latency of a `math` verdict in one process: the median and the 99th percentile, in milliseconds.

`python -m benchmarks.verdict_latency FOLDER` judges the comparisons of `benchmarks.gold_agreement` (gold answers in
their notations), and graded solutions if gsm8k_graded_solutions.jsonl exists, after a first verdict that loads sympy.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import numpy

from benchmarks.gold_agreement import ANSWERS, NOTATIONS
from benchmarks.verifier_agreement import read_graded


def notations(folder: Path) -> list[tuple[str, str]]:
    """Responses and answers: each gold answer, as given and rewritten."""
    found = []
    for suite, answer_of in ANSWERS.items():
        path = folder / f"{suite}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            answer = answer_of(json.loads(line))
            found += [(f"So it is $\\boxed{{{written(answer)}}}$.", answer) for written in NOTATIONS.values()]
    return found


def graded(folder: Path) -> list[tuple[str, str]]:
    path = folder / "gsm8k_graded_solutions.jsonl"
    return [(each.solution, each.answer) for each in read_graded(path)] if path.exists() else []


def measure(cases: list[tuple[str, str]]) -> dict[str, float]:
    """`verdicts`, `p50_ms`, `p99_ms`, `total_s` of CPU time."""
    from offsft.verify.math import judge

    taken_s = []
    for response, answer in cases:
        start = time.process_time()
        judge(response, answer)
        taken_s.append(time.process_time() - start)
    p50, p99 = (float(numpy.percentile(taken_s, q)) for q in (50, 99))
    return {
        "verdicts": len(cases),
        "p50_ms": round(1000 * p50, 3),
        "p99_ms": round(1000 * p99, 2),
        "total_s": round(sum(taken_s), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the benchmarks' JSONL files")
    arguments = parser.parse_args()
    from offsft.verify.math import judge

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    judge("\\boxed{\\sqrt{8}}", "2\\sqrt{2}")
    for name, cases in (("notations", notations(arguments.folder)), ("graded", graded(arguments.folder))):
        if cases:
            print(json.dumps({"cases": name, **measure(cases)}))


if __name__ == "__main__":
    main()
