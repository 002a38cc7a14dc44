"""What the guards changed in a rewriting run: `python -m benchmarks.guard_table RUN [--read N] [--json]`.

For each source: the problems that it keeps, and those that it would have kept without the guards (the first sample whose
answer is right decides); why the guards refused; and the share of kept rows whose answer has, under the policy on the
plain prompt, a probability below a tenth: in its last mark, and at the first place that states it. `--read N` prints the
first N kept responses of stages that show something, to be read by eye.
"""

import argparse
import json
import math
from collections import Counter
from typing import Any

from offsft.records import EXPERT, Outcome
from offsft.storage.paths import at, open_parquet, parquet_files

_REFUSED = {Outcome.UNSUPPORTED, Outcome.FALSE_STEP, Outcome.COPIED, Outcome.LEAKED, Outcome.BARE}
_DOUBTED = math.log(0.1)


def table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures by source, in the order of the cascade, and the reasons of refused samples by stage."""
    kept: Counter[str] = Counter()
    without: Counter[str] = Counter()
    judged: Counter[str] = Counter()
    last: Counter[str] = Counter()
    first: Counter[str] = Counter()
    refused: dict[str, Counter[str]] = {}
    for row in rows:
        source, measures = row["source"], row["measures"] or {}
        kept[source] += 1
        right = (each["stage"] for each in row["attempts"] if each["outcome"] in _REFUSED | {Outcome.CORRECT})
        without[next(right, source)] += 1
        for each in row["attempts"]:
            if each["outcome"] in _REFUSED:
                refused.setdefault(each["stage"], Counter())[each["outcome"]] += 1
        if measures.get("support_last") is not None:
            judged[source] += 1
            last[source] += measures["support_last"] < _DOUBTED
            first[source] += (measures.get("support_first") or 0.0) < _DOUBTED
    sources = {
        source: {
            "kept": kept[source],
            "kept_without_guards": without[source],
            "unsupported_last": _share(last[source], judged[source]),
            "unsupported_first": _share(first[source], judged[source]),
            "refused": dict(refused.get(source, {})),
        }
        for source in _in_order(rows, kept)
    }
    return {"problems": kept.total(), "sources": sources}


def _in_order(rows: list[dict[str, Any]], kept: Counter[str]) -> list[str]:
    """The stages as the problem that went through most of them did, then the other sources."""
    longest = max(rows, key=lambda row: len({each["stage"] for each in row["attempts"]}))
    return list(dict.fromkeys([*(each["stage"] for each in longest["attempts"]), *kept]))


def _share(number: int, of: int) -> float | None:
    return number / of if of else None


def _read(run: str) -> list[dict[str, Any]]:
    return [row for path in parquet_files(at(run) / "rewrites") for row in open_parquet(path).read().to_pylist()]


def _print_responses(rows: list[dict[str, Any]], number: int) -> None:
    shown = [row for row in rows if row["source"] not in ("self", EXPERT)][:number]
    for place, row in enumerate(shown, start=1):
        measures = row["measures"] or {}
        support = ", ".join(
            f"{name} {measures[name]:.2f}"
            for name in ("support_first", "support_last")
            if measures.get(name) is not None
        )
        print(f"\n===== {place}. {row['source']}, {row['id']}: answer {row['answer']}; {support}")
        print(f"{row['problem']}\n----- expert\n{row['solution']}\n----- kept\n{row['response']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run with finished rewrites")
    parser.add_argument("--read", type=int, default=0, metavar="N", help="print so many kept responses")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rows = _read(arguments.run)
    if not rows:
        parser.error(f"{arguments.run} holds no rewrites; run jobs.rewrite first")
    found = table(rows)
    if arguments.json:
        print(json.dumps(found))
        return
    print(
        "| source | kept | without guards | unsupported, last mark | first place | refused |\n|---|---|---|---|---|---|"
    )
    for source, each in found["sources"].items():
        shares = [
            "" if share is None else f"{share:.0%}" for share in (each["unsupported_last"], each["unsupported_first"])
        ]
        reasons = ", ".join(f"{name} {count}" for name, count in each["refused"].items())
        print(f"| {source} | {each['kept']} | {each['kept_without_guards']} | {' | '.join(shares)} | {reasons} |")
    _print_responses(rows, arguments.read)


if __name__ == "__main__":
    main()
