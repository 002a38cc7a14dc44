"""The report's sentences and key figures, made from a run's summary (see `offsft.report.summary`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from offsft.report import numbers
from offsft.report.summary import standard_errors

CLEAR_STANDARD_ERRORS = 2.0
"""A difference of at least so many standard errors is called one; a smaller one may be chance."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure: `value` large, `unit` small beside it, `label` below, `color` an entry of the palette."""

    value: str
    unit: str
    label: str
    color: str = "ink"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence, from the last stage that has finished."""
    if "evaluate" in summary:
        return _accuracy_headline(summary["evaluate"])
    if "train" in summary:
        return f"Trained for {plural(summary['train']['steps'], 'step')}; not evaluated yet."
    if "rewrite" in summary:
        rewrite = summary["rewrite"]
        share = (rewrite["self"] + rewrite["guided"]) / max(1, rewrite["problems"])
        return f"{numbers.percent(share)} of the demonstrations rewritten in the policy’s own words."
    return "No stage of this run has finished yet."


def standfirst(summary: dict[str, Any]) -> list[str]:
    """The sentences below the headline."""
    evaluate = summary.get("evaluate", {})
    return [
        sentence
        for sentence in (
            difference_sentence(evaluate.get("difference"), evaluate.get("problems", 0)),
            sources_sentence(summary.get("rewrite")),
            gap_sentence(summary.get("gap")),
        )
        if sentence
    ]


def difference_sentence(difference: dict[str, Any] | None, problems: int) -> str | None:
    """How large the change in accuracy is, and whether it could be chance."""
    if not difference or difference["mean"] is None:
        return None
    ratio = standard_errors(difference)
    on = f"points on {plural(problems, 'problem')}"
    if ratio is None or abs(ratio) < CLEAR_STANDARD_ERRORS:
        errors = f", {abs(ratio):.1f} standard errors: it may be chance" if ratio is not None else ""
        return f"A change of {numbers.points(difference['mean'])} {on}{errors}."
    size = numbers.points(abs(difference["mean"])).lstrip("+")
    return f"A {'gain' if ratio > 0 else 'loss'} of {size} {on}, {abs(ratio):.1f} standard errors of the difference."


def sources_sentence(rewrite: dict[str, Any] | None) -> str | None:
    """How many problems were kept from each stage of the cascade."""
    if rewrite is None:
        return None
    return (
        f"Of {plural(rewrite['problems'], 'problem')} the policy solved {numbers.count(rewrite['self'])} by itself and"
        f" {numbers.count(rewrite['guided'])} more with the expert’s solution in view;"
        f" {numbers.count(rewrite['expert'])} kept the demonstration."
    )


def gap_sentence(gap: dict[str, Any] | None) -> str | None:
    """How far rewriting brought the training data towards the policy."""
    if not gap or gap["expert_mean_logprob"] is None or gap["kept_mean_logprob"] is None:
        return None
    before, after = gap["expert_mean_logprob"], gap["kept_mean_logprob"]
    return (
        f"Rewriting moved the mean log-probability of a token under the policy from {numbers.nats(before)} to"
        f" {numbers.nats(after)} nats."
    )


@dataclass(frozen=True, slots=True)
class GapRow:
    """A line of the gap's table: whose responses, and their figures as text."""

    name: str
    color: str
    rows: str
    log_ratio: str
    kl: str
    token_ess: str
    sequence_ess: str
    top: str


def gap_rows(statistics: dict[str, Any] | None) -> list[GapRow]:
    """The gap of expert solutions and of kept responses by source, as `offsft.gap` measured it."""
    if not statistics:
        return []
    groups = [("expert solutions", "expert", statistics["expert"]["all"]), ("kept", "ink", statistics["kept"]["all"])]
    groups += [(f"kept, {name}", name, found) for name, found in statistics["kept"].items() if name != "all"]
    return [
        GapRow(
            name,
            color,
            numbers.count(found["rows"]),
            _or_dash(found["mean_log_ratio"], numbers.nats),
            _or_dash(found["kl_k3"], numbers.nats),
            _or_dash(found["ess_share"], numbers.percent),
            _or_dash(found["sequence_ess_share"], numbers.percent),
            _or_dash(found["sequence_top_share"], numbers.percent),
        )
        for name, color, found in groups
    ]


def gap_tables(gap: dict[str, Any] | None) -> list[tuple[str, list[GapRow]]]:
    """The gap's tables with their captions: before training, and of a sample before and after it."""
    if not gap:
        return []
    training = gap.get("training") or {}
    tables = [
        ("Before training, all rows.", gap_rows(gap.get("before"))),
        ("Before training, the rows that were measured again after it.", gap_rows(training.get("before"))),
        ("After training, under the trained policy.", gap_rows(training.get("after"))),
    ]
    return [(caption, rows) for caption, rows in tables if rows]


def _or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "–" if value is None else show(value)


def tiles(summary: dict[str, Any]) -> list[Tile]:
    """The key figures of the stages that have finished."""
    found: list[Tile] = []
    evaluate = summary.get("evaluate", {})
    difference = evaluate.get("difference")
    if difference and difference["mean"] is not None:
        error = f" (± {100 * difference['stderr']:.1f})" if difference["stderr"] is not None else ""
        change = numbers.points(difference["mean"])
        found.append(Tile(change, "points", f"accuracy, trained against base{error}", "trained"))
    if "rewrite" in summary:
        rewrite = summary["rewrite"]
        for source, label in (("self", "solved by the policy itself"), ("guided", "solved with guidance")):
            share = rewrite[source] / rewrite["problems"] if rewrite["problems"] else 0.0
            value, _, unit = numbers.percent(share).partition(numbers.SPACE)
            found.append(Tile(value, unit, label, source))
    gap = summary.get("gap")
    if gap and gap["expert_mean_logprob"] is not None and gap["kept_mean_logprob"] is not None:
        change = gap["kept_mean_logprob"] - gap["expert_mean_logprob"]
        found.append(Tile(numbers.nats(change, sign=True), "nats", "log-probability of a token, by rewriting"))
    if "train" in summary:
        train = summary["train"]
        value, _, unit = numbers.compact(train["tokens"]).partition(numbers.SPACE)
        found.append(Tile(value, f"{unit} tokens".strip(), f"trained on, in {plural(train['steps'], 'step')}"))
    if found:
        found.append(Tile(*_clock(summary["seconds"]), "all stages together"))
    return found


def plural(number: int, noun: str) -> str:
    """`1 step`, `1,200 steps`."""
    return f"{numbers.count(number)} {noun}{'' if number == 1 else 's'}"


def _clock(seconds: float) -> tuple[str, str]:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}", unit
    return f"{seconds:.0f}", "s"


def _accuracy_headline(evaluate: dict[str, Any]) -> str:
    solved = "held-out problems solved" if evaluate.get("samples", 1) == 1 else "answers to held-out problems correct"
    base = evaluate["base"]["accuracy"]
    if "trained" not in evaluate:
        return f"{numbers.percent(base)} of {solved} before training."
    trained = evaluate["trained"]["accuracy"]
    digits = 1 if numbers.percent(base) == numbers.percent(trained) and base != trained else 0
    return f"{numbers.percent(trained, digits)} of {solved} after training, {numbers.percent(base, digits)} before."
