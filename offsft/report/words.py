"""The report's sentences and key figures, built from a run's summary (see `offsft.report.summary`)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from offsft.records import EXPERT, UNSOLVED, Outcome
from offsft.report import numbers
from offsft.report.palette import source_colors, variable
from offsft.report.summary import standard_errors

CLEAR_STANDARD_ERRORS = 2.0
"""Least number of standard errors for a difference to be called a gain or loss; a smaller one may be chance."""

_HOW = {"self": "by itself", "guided": "more with the expert’s solution in view"}
"""Wording for how the built-in stages solve a problem."""
_REST = {EXPERT: "kept the demonstration", UNSOLVED: "are left out, as no stage solved them"}
"""Wording for the problems that no stage solved."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure: `value` large, `unit` small next to it, `label` below, `color` a CSS variable of the palette."""

    value: str
    unit: str
    label: str
    color: str = "--ink"


def headline(summary: dict[str, Any]) -> str:
    """The run in one sentence, from the last finished stage."""
    if "evaluate" in summary:
        return _accuracy_headline(summary["evaluate"])
    if "train" in summary:
        return f"Trained for {plural(summary['train']['steps'], 'step')}; not evaluated yet."
    if "rewrite" in summary:
        rewrite = summary["rewrite"]
        share = sum(solved_by_stages(rewrite).values()) / max(1, rewrite["problems"])
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
            opinions_sentence(summary.get("rewrite")),
            gap_sentence(summary.get("gap")),
        )
        if sentence
    ]


def cost_sentences(evaluate: dict[str, Any] | None) -> list[str]:
    """What the training cost elsewhere: the divergence from the base model, and the change on each suite of retention."""
    said = []
    kl = ((evaluate or {}).get("kl") or {}).get("trained")
    if kl and kl["mean"] is not None:
        interval = "" if kl["low"] is None else f" ({kl['low']:.3f} to {kl['high']:.3f})"
        said.append(f"KL from the base model, on its own samples: {kl['mean']:.3f}{interval} nats per token.")
    for each in (evaluate or {}).get("retention") or []:
        interval = "" if each["low"] is None else f" ({numbers.points(each['low'])} to {numbers.points(each['high'])})"
        said.append(f"Change on {each['suite']}: {numbers.points(each['mean'])}{interval} points.")
    return said


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
    """The number of problems that each stage of the cascade solved, and the outcome of the others."""
    if rewrite is None:
        return None
    solved = [
        f"{numbers.count(count)} {_HOW.get(name, f'in the stage {name}')}"
        for name, count in solved_by_stages(rewrite).items()
    ]
    rest = [
        f"{numbers.count(rewrite['sources'][name])} {end}" for name, end in _REST.items() if name in rewrite["sources"]
    ]
    clauses = [f"the policy solved {_join(solved)}", *rest] if solved else rest
    return f"Of {plural(rewrite['problems'], 'problem')} {'; '.join(clauses)}."


def opinions_sentence(rewrite: dict[str, Any] | None) -> str | None:
    """How many verdicts a chain of verifiers turned from no to yes; None without a chain."""
    found = (rewrite or {}).get("second_opinions")
    if not found:
        return None
    first, *others = found["verifiers"]
    failed = f"; where it failed ({numbers.count(found['failed'])}), the no stood" if found["failed"] else ""
    return (
        f"The second opinion ({_join(others)}) was asked about {plural(found['asked'], 'response')} that {first} held for wrong or"
        f" without an answer, and turned {numbers.count(found['turned'])} of them to correct{failed}."
    )


def solved_by_stages(rewrite: dict[str, Any]) -> dict[str, int]:
    """Number of problems by the stage that solved them, in order, without demonstrations and unsolved problems."""
    return {name: count for name, count in rewrite["sources"].items() if name not in _REST}


def _join(items: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def gap_sentence(gap: dict[str, Any] | None) -> str | None:
    """How far rewriting brought the training data towards the policy."""
    if not gap or gap["expert_mean_logprob"] is None or gap["kept_mean_logprob"] is None:
        return None
    before, after = gap["expert_mean_logprob"], gap["kept_mean_logprob"]
    return (
        f"Rewriting moved the mean log-probability of a token under the policy from {numbers.nats(before)} to"
        f" {numbers.nats(after)} nats."
    )


_REFUSED = (Outcome.UNSUPPORTED, Outcome.FALSE_STEP, Outcome.COPIED, Outcome.LEAKED, Outcome.BARE)


@dataclass(frozen=True, slots=True)
class GapRow:
    """A line of the gap's table: a group of responses and its figures as text."""

    name: str
    rows: str
    log_ratio: str
    kl: str
    token_ess: str
    sequence_ess: str
    top: str


def gap_rows(statistics: dict[str, Any] | None) -> list[GapRow]:
    """The gap of expert solutions and of kept responses by source, as measured by `offsft.gap`."""
    if not statistics:
        return []
    kept = dict(statistics["kept"])
    groups = [("expert solutions", statistics["expert"]["all"])]
    groups += [("kept" if name == "all" else f"kept, {name}", found) for name, found in kept.items()]
    return [
        GapRow(
            name,
            numbers.count(found["rows"]),
            _or_dash(found["mean_log_ratio"], numbers.nats),
            _or_dash(found["kl_k3"], numbers.nats),
            _or_dash(found["ess_share"], numbers.percent),
            _or_dash(found["sequence_ess_share"], numbers.percent),
            _or_dash(found["sequence_top_share"], numbers.percent),
        )
        for name, found in groups
    ]


def gap_tables(gap: dict[str, Any] | None) -> list[tuple[str, list[GapRow]]]:
    """The gap's tables with their captions: before training, and for a sample before and after training."""
    if not gap:
        return []
    training = gap.get("training") or {}
    tables = [
        ("Before training, all rows.", gap_rows(gap.get("before"))),
        ("Before training, the rows that were measured again after it.", gap_rows(training.get("before"))),
        ("After training, under the trained policy.", gap_rows(training.get("after"))),
    ]
    return [(caption, rows) for caption, rows in tables if rows]


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """A line of the table of measures: a source and its figures as text."""

    name: str
    rows: str
    unsupported: str
    false_steps: str
    leaks: str
    copied: str
    expert_length: str
    own_length: str
    doubt: str
    variety: str


def measure_rows(rewrite: dict[str, Any] | None) -> list[MeasureRow]:
    """What the hint did to the kept responses, by source, as counted by `offsft.measures.sums`."""
    return [
        MeasureRow(
            name,
            numbers.count(found["rows"]),
            _or_dash(found["unsupported_share"], numbers.percent),
            _or_dash(found["false_step_share"], numbers.percent),
            _or_dash(found["leak_share"], numbers.percent),
            _or_dash(found["copied_share"], numbers.percent),
            _or_dash(found["expert_length"], numbers.decimal),
            _or_dash(found["own_length"], numbers.decimal),
            _or_dash(found["doubt"], numbers.decimal),
            _or_dash(found["distinct_grams"], numbers.percent),
        )
        for name, found in ((rewrite or {}).get("measures") or {}).items()
    ]


def refused_sentence(rewrite: dict[str, Any] | None) -> str | None:
    """How many correct responses the guards and stages refused, and why."""
    counts: Counter[str] = Counter()
    for outcomes in ((rewrite or {}).get("attempts") or {}).values():
        counts.update({outcome: n for outcome, n in outcomes.items() if outcome in _REFUSED})
    if not counts:
        return None
    listed = _join([f"{numbers.count(n)} {outcome.replace('_', ' ')}" for outcome, n in counts.most_common()])
    return (
        f"Of the correct samples, {numbers.count(counts.total())} were refused for what the hint did to them: {listed}."
    )


def _or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "–" if value is None else show(value)


def tiles(summary: dict[str, Any]) -> list[Tile]:
    """The key figures of the finished stages."""
    found: list[Tile] = []
    evaluate = summary.get("evaluate", {})
    difference = evaluate.get("difference")
    if difference and difference["mean"] is not None:
        error = f" (± {100 * difference['stderr']:.1f})" if difference["stderr"] is not None else ""
        change = numbers.points(difference["mean"])
        found.append(Tile(change, "points", f"accuracy, trained against base{error}", "--trained"))
    if "rewrite" in summary:
        rewrite = summary["rewrite"]
        colors = source_colors(list(rewrite["sources"]))
        for source, count in solved_by_stages(rewrite).items():
            share = count / rewrite["problems"] if rewrite["problems"] else 0.0
            value, _, unit = numbers.percent(share).partition(numbers.SPACE)
            label = {"self": "solved by the policy itself", "guided": "solved with guidance"}.get(source)
            found.append(Tile(value, unit, label or f"solved in the stage {source}", variable(colors[source])))
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
