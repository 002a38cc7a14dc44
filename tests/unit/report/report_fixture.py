"""A synthetic run folder, as the stages would leave it, for the tests of the report."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from offsft.data.quarantine import QUARANTINE_SCHEMA
from offsft.data.tables import EVALUATION_SCHEMA, REWRITE_SCHEMA
from offsft.gap import Scored, gap_by_source
from offsft.measures.sums import MeasureSums
from offsft.records import Measures

HOSTILE = (
    "Two </script><script>window.injected = 1</script> <img src=x onerror='window.injected = 2'> & \"quoted\""
    " <!-- {{ 7 * 7 }} \u2028 x < y"
)
"""Text that would run, break the page or be read as a template if any step forgot to escape it."""

NEEDLE = "a lighthouse keeper"
"""Text in exactly one problem, to search for."""

_NAMES = ("Mara", "Jonas", "Ilse", "Tomas", "Priya", "Wen", "Amara", "Luc")
_THINGS = ("apples", "marbles", "stamps", "bolts", "candles", "tickets")


def make_run(run: Path, *, problems: int = 60, held_out: int = 40, samples: int = 1, steps: int = 24) -> Path:
    """Write every file that the report reads into `run`, and return it. The same arguments give the same folder."""
    draw = random.Random(7)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.resolved.yaml").write_text(
        yaml.safe_dump(
            {
                "run": str(run.name),
                "seed": 0,
                "model": {"path": "embedded", "revision": None},
                "rewrite": {"stages": [{"kind": kind, "name": kind} for kind in ("self", "guided", "expert")]},
                "note": HOSTILE,
            }
        )
    )
    rows = [_rewrite(draw, index) for index in range(problems)]
    _write_parts(run / "rewrites", rows, REWRITE_SCHEMA)
    quarantine = [
        {"file": "train.jsonl", "line": 17, "reason": "bad_json", "detail": "Expecting ',' delimiter", "raw": HOSTILE},
        {"file": "train.jsonl", "line": 41, "reason": "duplicate", "detail": "same problem as line 3", "raw": "{}"},
        {"file": "train.jsonl", "line": 58, "reason": "duplicate", "detail": "same problem as line 9", "raw": "{}"},
    ]
    _write_parts(run / "quarantine", quarantine, QUARANTINE_SCHEMA)
    _write(run / "rewrite.json", _rewrite_result(rows))
    _train(draw, run, steps)
    _evaluate(draw, run, held_out, samples)
    return run


def _rewrite(draw: random.Random, index: int) -> dict[str, Any]:
    a, b, c = draw.randint(12, 90), draw.randint(3, 11), draw.randint(2, 9)
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    problem = (
        f"{name} packs {b} boxes with {a} {thing} each and gives {c} of the {thing} away. How many {thing} are left?"
    )
    if index == 1:
        problem = HOSTILE
    if index == 2:
        problem = problem.replace(name, NEEDLE)
    answer = a * b - c
    source = ("self", "guided", "expert", "self", "expert")[index % 5]
    solution = f"{b}*{a} = {a * b}; {a * b}-{c} = {answer}. \\boxed{{{answer}}}"
    own = (
        f"First I find how many {thing} there are: {b} boxes hold {a} each, so {b} × {a} = {a * b}.\n\n"
        f"Then {c} are given away, which leaves {a * b} − {c} = {answer}.\n\nThe answer is \\boxed{{{answer}}}."
    )
    response = solution if source == "expert" else own
    attempts = [_attempt(draw, "self", own, answer) for _ in range(draw.randint(0, 2) if source == "self" else 4)]
    if source == "self":
        attempts.append({"stage": "self", "outcome": "correct", "tokens": draw.randint(50, 120), "text": own})
    elif source == "guided":
        attempts.append({"stage": "guided", "outcome": "correct", "tokens": draw.randint(40, 90), "text": own})
    else:
        attempts.append({"stage": "guided", "outcome": "leaked", "tokens": 55, "text": "As the given solution says, …"})
        attempts.append(_attempt(draw, "guided", own, answer))
    tokens = draw.randint(24, 60)
    expert_mean = draw.gauss(-1.6, 0.35)
    center = {"self": draw.gauss(-0.28, 0.06), "guided": draw.gauss(-0.7, 0.15), "expert": expert_mean}[source]
    policy = [min(-0.001, center) for _ in range(tokens)]
    return {
        "id": f"{index:08x}",
        "problem": problem,
        "answer": str(answer),
        "solution": solution,
        "source": source,
        "response": response,
        "prompt_ids": list(range(20)),
        "response_ids": list(range(tokens)),
        "behavior_logprobs": None if source == "expert" else policy,
        "policy_logprobs": policy,
        "expert_ids": [7, 8],
        "expert_logprobs": [expert_mean - 0.25, expert_mean + 0.25],
        "expert_mean_logprob": expert_mean,
        "attempts": attempts,
        "generated_tokens": sum(attempt["tokens"] for attempt in attempts),
        "verifier": "math",
        "policy": "embedded",
        "prompt_version": "1",
    }


def _attempt(draw: random.Random, stage: str, text: str, answer: int) -> dict[str, Any]:
    outcome = draw.choices(("wrong", "no_answer", "truncated", "timeout"), (70, 15, 13, 2))[0]
    wrong = text.replace(str(answer), str(answer + draw.randint(1, 9)))
    return {"stage": stage, "outcome": outcome, "tokens": draw.randint(60, 192), "text": wrong}


def _rewrite_result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sources = [row["source"] for row in rows]
    generated_tokens = sum(row["generated_tokens"] for row in rows)
    means = [sum(row["policy_logprobs"]) / len(row["policy_logprobs"]) for row in rows]
    return {
        "problems": len(rows),
        "sources": {source: sources.count(source) for source in ("self", "guided", "expert")},
        "quarantined": 3,
        "quarantine_reasons": {"duplicate": 2, "bad_json": 1},
        "generated_tokens": generated_tokens,
        "tokens_per_s": 212.4,
        "seconds": 143.2,
        "expert_mean_logprob": sum(row["expert_mean_logprob"] for row in rows) / len(rows),
        "kept_mean_logprob": sum(means) / len(means),
        "gap": gap_statistics(rows),
        "attempts": {"guided": {"leaked": 4, "false_step": 7, "correct": 12, "wrong": 40}},
        "measures": {source: _measures(share) for source, share in (("self", 0.07), ("guided", 0.25))},
    }


def _measures(unsupported_share: float) -> dict[str, Any]:
    """Figures of one source as `offsft.measures.sums` counts them."""
    sums = MeasureSums()
    for number in range(100):
        unsupported = number < round(100 * unsupported_share)
        found = Measures(support_first=-3.0 if unsupported else -0.1, false_steps=0, expert_length=1.5, doubt=2.0)
        sums.add(asdict(found), [number, 1, 2, 3, 4])
    return sums.statistics()


def gap_statistics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Gap statistics as `offsft.gap` writes them."""
    ids, sources = [row["id"] for row in rows], [row["source"] for row in rows]
    kept = Scored(ids, sources, *([row[name] for row in rows] for name in ("policy_logprobs", "behavior_logprobs")))
    expert = Scored(ids, ["expert"] * len(rows), [row["expert_logprobs"] for row in rows], [None] * len(rows))
    return {"expert": gap_by_source([expert]), "kept": gap_by_source([kept])}


def _train(draw: random.Random, run: Path, steps: int) -> None:
    lines = []
    for step in range(1, steps + 1):
        fall = 0.5 ** (step / 10)
        lines.append(
            {
                "step": step,
                "loss/objective": 0.09 + 0.06 * fall + draw.gauss(0, 0.006),
                "loss/nll": 0.55 + 0.4 * fall + draw.gauss(0, 0.03),
                "optim/grad_norm": 0.5 + 0.8 * fall + draw.gauss(0, 0.06),
                "optim/learning_rate": 2e-5 * min(1, step / 3),
                "weight/mean": 0.7,
                "weight/ess_share": 0.82,
                "perf/tokens_per_s": 190.0,
            }
        )
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    measured = [
        {
            "step": step,
            "held_out/nll/self": 0.34 - 0.06 * (1 - 0.5 ** (step / 10)) + 0.0002 * step,
            "held_out/nll/guided": 0.7 - 0.2 * (1 - 0.5 ** (step / 10)),
            "held_out/nll/expert": 1.1 - 0.3 * (1 - 0.5 ** (step / 10)),
            "held_out/nll/all": 0.62 - 0.15 * (1 - 0.5 ** (step / 10)),
        }
        for step in range(0, steps + 1, 5)
    ]
    (run / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in measured))
    _write(
        run / "train.json",
        {
            "steps": steps,
            "tokens": 14_204,
            "tokens_per_s": 188.9,
            "seconds": 96.4,
            "final_loss": lines[-1]["loss/objective"],
            "final_nll": lines[-1]["loss/nll"],
            "objective": "dft",
            "rows": 60,
            "cut_rows": 1,
        },
    )


def _evaluate(draw: random.Random, run: Path, held_out: int, samples: int) -> None:
    scores: dict[str, Any] = {}
    means: dict[str, list[float]] = {}
    for model, skill in (("base", 0.2), ("trained", 0.55)):
        rows = []
        for index in range(held_out):
            answer = 40 + index
            judged = [_sample(draw, skill, answer) for _ in range(samples)]
            problem = (
                HOSTILE if index == 0 else f"{_NAMES[index % 8]} has {30 + index} bolts and buys 10 more. How many now?"
            )
            about = {"id": f"h{index:07x}", "suite": "held_out", "problem": problem, "answer": str(answer)}
            rows.append({**about, "samples": judged, "greedy": []})
        _write_parts(run / "evaluation" / model, rows if model == "base" else rows[::-1], EVALUATION_SCHEMA)
        means[model] = [sum(s["outcome"] == "correct" for s in row["samples"]) / samples for row in rows]
        mean, stderr = _mean_and_stderr(means[model])
        outcomes = [s["outcome"] for row in rows for s in row["samples"]]
        scores[model] = {
            "accuracy": mean,
            "stderr": stderr,
            "no_answer_share": outcomes.count("no_answer") / len(outcomes),
            "truncated_share": outcomes.count("truncated") / len(outcomes),
            "mean_tokens": sum(s["tokens"] for row in rows for s in row["samples"]) / len(outcomes),
        }
    gain, stderr = _mean_and_stderr(
        [after - before for before, after in zip(means["base"], means["trained"], strict=True)]
    )
    result = {"problems": held_out, "samples": samples, "temperature": 1.0, **scores}
    _write(run / "evaluate.json", result | {"difference": {"mean": gain, "stderr": stderr}, "seconds": 61.0})


def _sample(draw: random.Random, skill: float, answer: int) -> dict[str, Any]:
    outcome = "correct" if draw.random() < skill else draw.choice(("wrong", "wrong", "no_answer", "truncated"))
    found = {"correct": str(answer), "wrong": str(answer + 3)}.get(outcome)
    response = f"There were {answer - 10} and 10 more make \\boxed{{{found or '?'}}}."
    return {"response": response, "outcome": outcome, "extracted": found, "tokens": draw.randint(20, 192)}


def _mean_and_stderr(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) ** 0.5


def _write(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=2))


def _write_parts(folder: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    middle = (len(rows) + 1) // 2
    for part, some in enumerate((rows[:middle], rows[middle:])):
        pq.write_table(pa.Table.from_pylist(some, schema=schema), folder / f"{part:03}.parquet")
