"""An evaluation's table: every model on every suite, and each model against the first."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from offsft.evaluate.statistics import (
    Judged,
    ScoreEstimate,
    estimate,
    ks,
    majority,
    mean_of,
    outcome_share,
    paired_difference,
    pass_at,
    share_correct,
    share_correct_of_complete,
)
from offsft.records import Outcome
from offsft.storage.paths import StoragePath, nan_to_null, parquet_files, read_table, write_json, write_text_atomically

ALL_SUITES = "mean of suites"


@dataclass(frozen=True, slots=True)
class Answered:
    """A problem's judged samples; `greedy` is None where no greedy answer was requested."""

    samples: list[Judged]
    greedy: Judged | None


def read_verdicts(answers: StoragePath) -> pa.Table:
    """All rows of a folder of EVALUATION_SCHEMA, without the response texts, which may be large."""
    leaves = [
        f"{column}.list.element.{leaf}"
        for column in ("samples", "greedy")
        for leaf in ("outcome", "extracted", "tokens")
    ]
    return pa.concat_tables(read_table(path, columns=["id", "suite", *leaves]) for path in parquet_files(answers))


def evaluation_table(
    results: Mapping[str, pa.Table],
    left_out: Mapping[str, int],
    *,
    drift: Mapping[str, ScoreEstimate] | None = None,
    retention: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of `evaluation.json`: `rows` per suite and model, and `differences` of later models from the first.

    `results` are tables from `read_verdicts` by model, `left_out` the number of problems per suite that do not fit in
    the context. With several suites, their unweighted mean is an additional suite, without those of `retention`, which
    are marked. `kl` holds the models' KL divergence from the first, in nats per token. Figures that cannot be measured,
    such as the error of one problem, are None.
    """
    answered = {model: answered_by_suite(table) for model, table in results.items()}
    suites = [suite for suite in left_out if all(suite in found for found in answered.values())]
    rows = [
        {
            "suite": suite,
            "model": model,
            "retention": suite in retention,
            "left_out": left_out[suite],
            **_score_problems(list(answered[model][suite].values())),
        }
        for suite in suites
        for model in results
    ]
    first, *others = results
    differences = []
    for model in others:
        found = [paired_difference(_means(answered[first][suite]), _means(answered[model][suite])) for suite in suites]
        named = list(zip(suites, found, strict=True))
        learnt = [each for suite, each in named if suite not in retention]
        named += [(ALL_SUITES, mean_of(learnt))] if len(learnt) > 1 else []
        differences += [{"suite": suite, "model": model, "less": first, **asdict(each)} for suite, each in named]
    if len([suite for suite in suites if suite not in retention]) > 1:
        learnt_rows = [row for row in rows if not row["retention"]]
        rows += [_over_suites(model, [row for row in learnt_rows if row["model"] == model]) for model in results]
    kl = [{"model": model, **asdict(each)} for model, each in (drift or {}).items()]
    return nan_to_null({"rows": rows, "differences": differences, "kl": kl})


def answered_by_suite(table: pa.Table) -> dict[str, dict[str, Answered]]:
    """A table from `read_verdicts` as suite -> problem's id -> its judged samples."""
    found: dict[str, dict[str, Answered]] = {}
    for row in table.select(["id", "suite", "samples", "greedy"]).to_pylist():
        greedy = [_read_verdict(sample) for sample in row["greedy"]]
        answered = Answered([_read_verdict(sample) for sample in row["samples"]], greedy[0] if greedy else None)
        found.setdefault(row["suite"], {})[row["id"]] = answered
    return found


def _read_verdict(sample: Mapping[str, Any]) -> Judged:
    return Judged(Outcome(sample["outcome"]), sample["extracted"], sample["tokens"])


def _means(answered: Mapping[str, Answered]) -> dict[str, float]:
    return {problem: share_correct(each.samples) for problem, each in answered.items()}


def _score_problems(answered: Sequence[Answered]) -> dict[str, Any]:
    drawn = [each.samples for each in answered]
    samples = [sample for each in drawn for sample in each]
    greedy = [float(each.greedy.correct) for each in answered if each.greedy is not None]
    correct = [sum(sample.correct for sample in each) for each in drawn]
    return {
        "problems": len(drawn),
        "samples": len(drawn[0]),
        "mean": asdict(estimate([share_correct(each) for each in drawn])),
        "complete_mean": share_correct_of_complete(samples),
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
        return asdict(mean_of([ScoreEstimate(**pick(row)) for row in rows]))

    shares = {f"{outcome}_share" for outcome in _SHARES} | {"mean_tokens", "complete_mean"}
    return {
        "suite": ALL_SUITES,
        "model": model,
        "retention": False,
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
    """Write `evaluation.json`, and the same table as `.md` and `.csv`."""
    write_json(folder / "evaluation.json", table)
    write_text_atomically(folder / "evaluation.md", markdown(table))
    write_text_atomically(folder / "evaluation.csv", comma_separated(table))


def columns(table: Mapping[str, Any]) -> list[str]:
    """Headings of the figures that `figures` returns."""
    samples = table["rows"][0]["samples"]
    names = [f"mean@{samples}, % (95 %)"]
    if samples > 1:
        names += [f"pass@{samples}, %", f"maj@{samples}, %"]
    if table["rows"][0]["greedy"]:
        names.append("greedy, %")
    return [*names, "truncated", "without cut, %", "no answer", "tokens"]


def figures(row: Mapping[str, Any]) -> list[str]:
    """A row's figures as text: the mean with its interval, others with ± one standard error."""
    cells = [_with_interval(row["mean"])]
    if row["samples"] > 1:
        cells += [_with_error(row["pass"][str(row["samples"])]), _with_error(row["maj"])]
    if row["greedy"]:
        cells.append(_with_error(row["greedy"]))
    complete = row.get("complete_mean")
    cut = [f"{100 * row['truncated_share']:.1f} %", "" if complete is None else f"{100 * complete:.1f}"]
    return [*cells, *cut, f"{100 * row['no_answer_share']:.1f} %", f"{row['mean_tokens']:.0f}"]


def change(difference: Mapping[str, Any]) -> str:
    """A difference in points with its interval."""
    low, high = difference["low"], difference["high"]
    interval = "" if low is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * difference['mean']:+.1f}{interval}"


def markdown(table: Mapping[str, Any]) -> str:
    """Both tables as Markdown."""
    names = columns(table)
    lines = [f"| suite | model | problems | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for row in table["rows"]:
        problems = f"{row['problems']}" + (f" ({row['left_out']} left out)" if row["left_out"] else "")
        suite = f"{row['suite']} (retention)" if row.get("retention") else row["suite"]
        lines.append(f"| {suite} | {row['model']} | {problems} | {' | '.join(figures(row))} |")
    if table["differences"]:
        lines += ["", "| suite | change of the mean, points (95 %) | |", "|---|---|---|"]
        for each in table["differences"]:
            lines.append(f"| {each['suite']} | {change(each)} | {each['model']} less {each['less']} |")
    if table.get("kl"):
        lines += ["", "| model | KL from the first model, nats per token (95 %) |", "|---|---|"]
        lines += [f"| {each['model']} | {nats(each)} |" for each in table["kl"]]
    return "\n".join(lines) + "\n"


def nats(each: Mapping[str, Any]) -> str:
    """A divergence with its interval."""
    interval = "" if each["low"] is None else f" ({each['low']:.4f} to {each['high']:.4f})"
    return f"{each['mean']:.4f}{interval}"


def comma_separated(table: Mapping[str, Any]) -> str:
    """All figures as CSV: one line per suite, model and figure."""
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
        for name in (
            "problems",
            "left_out",
            *(f"{outcome}_share" for outcome in _SHARES),
            "mean_tokens",
            "complete_mean",
        ):
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
    for each in table.get("kl", []):
        writer.writerow(["", each["model"], "kl", *(each[key] for key in ("mean", "stderr", "low", "high"))])
    return file.getvalue()


def _with_interval(each: Mapping[str, Any]) -> str:
    interval = "" if each["low"] is None else f" ({100 * each['low']:.1f} to {100 * each['high']:.1f})"
    return f"{100 * each['mean']:.1f}{interval}"


def _with_error(each: Mapping[str, Any]) -> str:
    return f"{100 * each['mean']:.1f}" + ("" if each["stderr"] is None else f" ± {100 * each['stderr']:.1f}")
