"""The table of an evaluation: every model on every suite, and each model against the first."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from offsft.evaluate.metrics import (
    Estimate,
    Judged,
    estimate,
    ks,
    majority,
    mean_of,
    outcome_share,
    paired_difference,
    pass_at,
    share_correct,
)
from offsft.records import Outcome
from offsft.run_folder import write_text_atomically
from offsft.storage import StoragePath, parquet_files, read_table

ALL_SUITES = "mean of suites"


@dataclass(frozen=True, slots=True)
class Answered:
    """A problem's samples, judged; `greedy` is None where no greedy answer was asked for."""

    samples: list[Judged]
    greedy: Judged | None


def read_verdicts(answers: StoragePath) -> pa.Table:
    """All rows of a folder of EVALUATION_SCHEMA without the responses' texts, which may be large."""
    leaves = [
        f"{column}.list.element.{leaf}"
        for column in ("samples", "greedy")
        for leaf in ("outcome", "extracted", "tokens")
    ]
    return pa.concat_tables(read_table(path, columns=["id", "suite", *leaves]) for path in parquet_files(answers))


def evaluation_table(results: Mapping[str, pa.Table], left_out: Mapping[str, int]) -> dict[str, Any]:
    """What `evaluation.json` holds: `rows` (each suite and model) and `differences` (each suite and model but the first, less the first).

    `results` are tables as `read_verdicts` gives them, by model, `left_out` the problems without room of each suite. With several
    suites, their plain mean is a suite more. What cannot be measured, such as the error of one problem, is None.
    """
    answered = {model: _by_suite(table) for model, table in results.items()}
    suites = [suite for suite in left_out if all(suite in found for found in answered.values())]
    rows = [
        {
            "suite": suite,
            "model": model,
            "left_out": left_out[suite],
            **_measured(list(answered[model][suite].values())),
        }
        for suite in suites
        for model in results
    ]
    first, *others = results
    differences = []
    for model in others:
        found = [paired_difference(_means(answered[first][suite]), _means(answered[model][suite])) for suite in suites]
        named = list(zip(suites, found, strict=True)) + ([(ALL_SUITES, mean_of(found))] if len(found) > 1 else [])
        differences += [{"suite": suite, "model": model, "less": first, **asdict(each)} for suite, each in named]
    if len(suites) > 1:
        rows += [_over_suites(model, [row for row in rows if row["model"] == model]) for model in results]
    return _measurable({"rows": rows, "differences": differences})


def _by_suite(table: pa.Table) -> dict[str, dict[str, Answered]]:
    found: dict[str, dict[str, Answered]] = {}
    for row in table.select(["id", "suite", "samples", "greedy"]).to_pylist():
        greedy = [_judged(sample) for sample in row["greedy"]]
        answered = Answered([_judged(sample) for sample in row["samples"]], greedy[0] if greedy else None)
        found.setdefault(row["suite"], {})[row["id"]] = answered
    return found


def _judged(sample: Mapping[str, Any]) -> Judged:
    return Judged(Outcome(sample["outcome"]), sample["extracted"], sample["tokens"])


def _means(answered: Mapping[str, Answered]) -> dict[str, float]:
    return {problem: share_correct(each.samples) for problem, each in answered.items()}


def _measured(answered: Sequence[Answered]) -> dict[str, Any]:
    drawn = [each.samples for each in answered]
    samples = [sample for each in drawn for sample in each]
    greedy = [float(each.greedy.correct) for each in answered if each.greedy is not None]
    correct = [sum(sample.correct for sample in each) for each in drawn]
    return {
        "problems": len(drawn),
        "samples": len(drawn[0]),
        "mean": asdict(estimate([share_correct(each) for each in drawn])),
        "pass": {
            str(k): asdict(estimate([pass_at(len(each), n, k) for each, n in zip(drawn, correct, strict=True)]))
            for k in ks(len(drawn[0]))
        },
        "maj": asdict(estimate([majority(each) for each in drawn])),
        "greedy": asdict(estimate(greedy)) if greedy else None,
        **{f"{outcome}_share": outcome_share(samples, outcome) for outcome in _SHARES},
        "mean_tokens": math.fsum(sample.tokens for sample in samples) / len(samples),
    }


_SHARES = (Outcome.TRUNCATED, Outcome.NO_ANSWER, Outcome.TIMEOUT, Outcome.ERROR)


def _over_suites(model: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def over(pick: Any) -> dict[str, float]:
        return asdict(mean_of([Estimate(**pick(row)) for row in rows]))

    shares = {f"{outcome}_share" for outcome in _SHARES} | {"mean_tokens"}
    return {
        "suite": ALL_SUITES,
        "model": model,
        "left_out": sum(row["left_out"] for row in rows),
        "problems": sum(row["problems"] for row in rows),
        "samples": rows[0]["samples"],
        "mean": over(lambda row: row["mean"]),
        "pass": {k: over(lambda row, k=k: row["pass"][k]) for k in rows[0]["pass"]},
        "maj": over(lambda row: row["maj"]),
        "greedy": over(lambda row: row["greedy"]) if rows[0]["greedy"] else None,
        **{key: math.fsum(row[key] for row in rows) / len(rows) for key in sorted(shares)},
    }


def write_table(table: Mapping[str, Any], folder: StoragePath) -> None:
    """`evaluation.json`, and the same as `.md` and `.csv`."""
    write_text_atomically(folder / "evaluation.json", json.dumps(table, indent=2, allow_nan=False) + "\n")
    write_text_atomically(folder / "evaluation.md", markdown(table))
    write_text_atomically(folder / "evaluation.csv", comma_separated(table))


def columns(table: Mapping[str, Any]) -> list[str]:
    """Headings of the figures that `figures` gives."""
    samples = table["rows"][0]["samples"]
    names = [f"mean@{samples}, % (95 %)"]
    if samples > 1:
        names += [f"pass@{samples}, %", f"maj@{samples}, %"]
    if table["rows"][0]["greedy"]:
        names.append("greedy, %")
    return [*names, "truncated", "no answer", "tokens"]


def figures(row: Mapping[str, Any]) -> list[str]:
    """A row's figures as text: the mean with its interval, others with one standard error each way."""
    cells = [_with_interval(row["mean"])]
    if row["samples"] > 1:
        cells += [_with_error(row["pass"][str(row["samples"])]), _with_error(row["maj"])]
    if row["greedy"]:
        cells.append(_with_error(row["greedy"]))
    shares = [f"{100 * row[key]:.1f} %" for key in ("truncated_share", "no_answer_share")]
    return [*cells, *shares, f"{row['mean_tokens']:.0f}"]


def change(difference: Mapping[str, Any]) -> str:
    """A difference in points with its interval."""
    low, high = difference["low"], difference["high"]
    interval = "" if low is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * difference['mean']:+.1f}{interval}"


def markdown(table: Mapping[str, Any]) -> str:
    """Both tables for people."""
    names = columns(table)
    lines = [f"| suite | model | problems | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for row in table["rows"]:
        problems = f"{row['problems']}" + (f" ({row['left_out']} left out)" if row["left_out"] else "")
        lines.append(f"| {row['suite']} | {row['model']} | {problems} | {' | '.join(figures(row))} |")
    if table["differences"]:
        lines += ["", "| suite | change of the mean, points (95 %) | |", "|---|---|---|"]
        for each in table["differences"]:
            lines.append(f"| {each['suite']} | {change(each)} | {each['model']} less {each['less']} |")
    return "\n".join(lines) + "\n"


def comma_separated(table: Mapping[str, Any]) -> str:
    """Every figure: one line for each suite, model and figure."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["suite", "model", "figure", "value", "stderr", "low", "high"])
    for row in table["rows"]:
        samples = row["samples"]
        found = {f"mean@{samples}": row["mean"], f"maj@{samples}": row["maj"], "greedy": row["greedy"]}
        found |= {f"pass@{k}": each for k, each in row["pass"].items()}
        for name, each in found.items():
            if each:
                spread = [each[key] for key in ("stderr", "low", "high")]
                writer.writerow([row["suite"], row["model"], name, each["mean"], *spread])
        for name in ("problems", "left_out", *(f"{outcome}_share" for outcome in _SHARES), "mean_tokens"):
            writer.writerow([row["suite"], row["model"], name, row[name], "", "", ""])
    for each in table["differences"]:
        writer.writerow(
            [
                each["suite"],
                each["model"],
                f"less {each['less']}",
                *(each[k] for k in ("mean", "stderr", "low", "high")),
            ]
        )
    return file.getvalue()


def _with_interval(each: Mapping[str, Any]) -> str:
    interval = "" if each["low"] is None else f" ({100 * each['low']:.1f} to {100 * each['high']:.1f})"
    return f"{100 * each['mean']:.1f}{interval}"


def _with_error(each: Mapping[str, Any]) -> str:
    return f"{100 * each['mean']:.1f}" + ("" if each["stderr"] is None else f" ± {100 * each['stderr']:.1f}")


def _measurable(value: Any) -> Any:
    """The same with None for what could not be measured, such as the standard error of one problem."""
    if isinstance(value, dict):
        return {key: _measurable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_measurable(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
