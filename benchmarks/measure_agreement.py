"""Precision and recall of the measures on labelled responses: `python -m benchmarks.measure_agreement RESPONSES... [--json]`.

RESPONSES are files that `benchmarks.guided_responses` writes. `benchmarks/measure_labels.jsonl` has the labels of those that
a person has read: the problem's id, a hash of the response, and what is wrong with it. Responses without a label, and
labels without a response, are counted: another machine may sample other texts.
"""

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from offsft.config.guards import GuardConfig
from offsft.measures.false_steps import check_steps
from offsft.measures.leaks import leak_in_words
from offsft.measures.row import Sample, measure_text, with_scores
from offsft.measures.spans import Decode
from offsft.records import Measures, Problem

_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
LABELS = Path(__file__).with_name("measure_labels.jsonl")
FAULTS = ("unsupported", "false_step", "copied", "leaked", "bare")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A response with its measures and the faults that a reader has found in it."""

    is_correct: bool
    measures: Measures
    faults: frozenset[str]


def key_of(problem_id: str, text: str) -> str:
    """The key of a response's label."""
    return f"{problem_id}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def found_faults(measures: Measures, guards: GuardConfig) -> frozenset[str]:
    """The faults that the guards would refuse a response for, each by itself."""
    found = {
        "false_step": guards.false_steps is not None and (measures.false_steps or 0) > guards.false_steps,
        "copied": guards.copied_share is not None and (measures.copied_share or 0) > guards.copied_share,
        "leaked": measures.leak is not None or _above(measures.hint_lift, guards.hint_lift),
        "bare": bool(measures.bare),
        "unsupported": _below(measures.support_last, guards.support)
        or _below(measures.support_first, guards.first_support),
    }
    return frozenset(name for name, is_found in found.items() if is_found)


def _below(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value < limit


def _above(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def agreement(rows: list[Labelled], guards: GuardConfig) -> dict[str, dict[str, Any]]:
    """Per fault: how many responses have it, how many the guard finds, precision and recall (None of none)."""
    table: dict[str, dict[str, Any]] = {}
    for fault in FAULTS:
        labelled = [fault in row.faults for row in rows]
        found = [fault in found_faults(row.measures, guards) for row in rows]
        both = sum(a and b for a, b in zip(labelled, found, strict=True))
        table[fault] = {
            "labelled": sum(labelled),
            "found": sum(found),
            "both": both,
            "precision": both / sum(found) if any(found) else None,
            "recall": both / sum(labelled) if any(labelled) else None,
        }
    return table


def read_responses(paths: list[Path]) -> Iterator[dict[str, Any]]:
    """The finished guided responses of the files."""
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["stage"] == "guided" and "prompt" in row:
                yield row


def measured(row: dict[str, Any], decode: Decode) -> Measures:
    """All measures of a response, as the cascade takes them."""
    problem = Problem(**row["problem"])
    sample = Sample(row["text"], row["token_ids"], row["prompt"])
    found, _ = measure_text(sample, problem, row["expert_ids"])
    lift = row["behavior_logprobs"] if row["undistorted"] else None
    return with_scores(found, sample, problem, decode, row.get("policy_logprobs"), lift)


def read_labelled(paths: list[Path]) -> tuple[list[Labelled], dict[str, int]]:
    """The labelled responses of files, and how many labels and responses have no partner."""
    labels, rows, unlabelled = read_labels(), [], 0
    seen: set[str] = set()
    for row in read_responses(paths):
        key = key_of(row["problem"]["id"], row["text"])
        if key not in labels:
            unlabelled += 1
        else:
            seen.add(key)
            rows.append(Labelled(row["outcome"] == "correct", measured(row, _decoder(row["model"])), labels[key]))
    lost = [key for key in labels.keys() - seen if not key.startswith("graded-")]
    return rows, {"unlabelled": unlabelled, "labels_without_response": len(lost)}


@cache
def _decoder(model: str) -> Decode:
    from transformers import AutoTokenizer

    from offsft.demo.model import embedded_model

    tokenizer: Any = AutoTokenizer.from_pretrained(str(embedded_model()) if model == "embedded" else model)
    return lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def read_labels() -> dict[str, frozenset[str]]:
    lines = LABELS.read_text(encoding="utf-8").splitlines()
    return {row["key"]: frozenset(row["faults"]) for row in map(json.loads, lines)}


def graded(path: Path) -> dict[str, int]:
    """What is found in model solutions that were shown nothing: a leak there is a false alarm.

    `path` is gsm8k_graded_solutions.jsonl of openai/grade-school-math. Each response with a false step is in the labels, under
    the row's line and the model's name; `false_alarms` are those that the reader found to hold.
    """
    labels, found = read_labels(), Counter[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for model, solution in json.loads(line).items():
            if not isinstance(solution, dict):
                continue
            text = _CALCULATOR.sub("", solution["solution"])
            steps = check_steps(text)
            found.update(responses=1, holding=steps.holding, false=len(steps.false), not_judged=steps.not_judged)
            found.update(leaks=leak_in_words(text) is not None, with_false_steps=bool(steps.false))
            if steps.false:
                faults = labels.get(key_of(f"graded-{number}-{model}", text))
                found.update(unlabelled=faults is None, false_alarms=faults == frozenset())
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("responses", type=Path, nargs="*")
    parser.add_argument("--graded", type=Path, help="gsm8k_graded_solutions.jsonl")
    parser.add_argument("--support", type=float, default=GuardConfig().support, help="limit for the last mark, nats")
    parser.add_argument("--first-support", type=float, default=GuardConfig().first_support, help="for the first place")
    parser.add_argument("--hint-lift", type=float, default=None, help="limit for a passage's log-ratio, nats")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.graded:
        print(json.dumps(graded(arguments.graded)))
        return
    for path in arguments.responses:
        if not path.is_file():
            parser.error(f"{path} is not a file; `python -m benchmarks.guided_responses` writes one")
    guards = GuardConfig(
        support=arguments.support, first_support=arguments.first_support, hint_lift=arguments.hint_lift
    )
    rows, missing = read_labelled(arguments.responses)
    table = agreement(rows, guards)
    if arguments.json:
        print(json.dumps({"responses": len(rows), **missing, "faults": table}))
        return
    print(
        f"{len(rows)} labelled responses ({missing['unlabelled']} without a label, {missing['labels_without_response']} labels without a response)"
    )
    passed = [row for row in rows if row.is_correct and not found_faults(row.measures, guards)]
    print(
        f"of {sum(row.is_correct for row in rows)} correct ones, {sum(bool(row.faults) and row.is_correct for row in rows)} have a"
        f" fault; {len(passed)} pass all guards, {sum(bool(row.faults) for row in passed)} of them with a fault"
    )
    for fault, found in table.items():
        precision, recall = ("-" if found[name] is None else f"{found[name]:.2f}" for name in ("precision", "recall"))
        print(
            f"{fault:12} labelled {found['labelled']:3}  found {found['found']:3}  precision {precision:>4}  recall {recall:>4}"
        )


if __name__ == "__main__":
    main()
