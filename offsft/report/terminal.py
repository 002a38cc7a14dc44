"""The summary of a run on the terminal, printed at its end."""

from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from offsft.records import EXPERT, UNSOLVED
from offsft.report import numbers
from offsft.report.summary import standard_errors
from offsft.runtime.console import span

_BAR_CELLS = 24
_STAGE_COLORS = ("blue", "yellow", "cyan", "green", "red", "white")
_COLORS = {EXPERT: "magenta", UNSOLVED: "bright_black"}


def summary_table(summary: dict[str, Any]) -> RenderableType:
    """A compact table of the summary that `write_summary` returned; stages that have not run are marked so."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    _rewrite(table, summary.get("rewrite"))
    _gap(table, summary.get("gap"))
    _train(table, summary.get("train"))
    _evaluate(table, summary.get("evaluate"))
    table.add_row("Time", "all stages", span(summary.get("seconds", 0)))
    return table


def _rewrite(table: Table, rewrite: dict[str, Any] | None) -> None:
    if rewrite is None:
        return _absent(table, "Rewriting")
    problems = rewrite["problems"]
    for index, (source, kept) in enumerate(rewrite["sources"].items()):
        share = kept / problems if problems else 0.0
        color = _COLORS.get(source) or _STAGE_COLORS[index % len(_STAGE_COLORS)]
        bar = Text("█" * round(share * _BAR_CELLS), style=color)
        table.add_row("" if index else "Rewriting", source, numbers.count(kept), numbers.percent(share), bar)
    if second := rewrite.get("second_opinions"):
        share = numbers.percent(second["turned"] / second["asked"]) if second["asked"] else ""
        note = Text(f"of {numbers.count(second['asked'])} verdicts, to correct", style="dim")
        table.add_row(
            "", "turned by " + " and ".join(second["verifiers"][1:]), numbers.count(second["turned"]), share, note
        )
    if rewrite["quarantined"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in rewrite.get("quarantine_reasons", {}).items())
        table.add_row("", "quarantined", numbers.count(rewrite["quarantined"]), "", Text(reasons, style="dim"))
    _work(table, "sampled", rewrite["generated_tokens"], rewrite)


def _gap(table: Table, gap: dict[str, Any] | None) -> None:
    if gap is None:
        return
    expert, kept = gap["expert_mean_logprob"], gap["kept_mean_logprob"]
    if expert is None or kept is None:
        return
    note = Text("nats per token under the policy", style="dim")
    table.add_row("Policy gap", "expert solutions", numbers.nats(expert), "", note)
    change = Text(f"{numbers.nats(kept - expert, sign=True)} by rewriting", style="dim")
    table.add_row("", "kept responses", numbers.nats(kept), "", change, end_section=True)


def _train(table: Table, train: dict[str, Any] | None) -> None:
    if train is None:
        return _absent(table, "Training")
    loss = Text(f"final loss {numbers.decimal(train['final_loss'])}", style="dim")
    table.add_row("Training", "steps", numbers.count(train["steps"]), "", loss)
    _work(table, "tokens", train["tokens"], train)


def _evaluate(table: Table, evaluate: dict[str, Any] | None) -> None:
    if evaluate is None:
        return _absent(table, "Accuracy")
    problems = Text(f"{numbers.count(evaluate['problems'])} held-out problems", style="dim")
    for name in ("base", "trained"):
        if name not in evaluate:
            continue
        score = evaluate[name]
        error = f"± {100 * score['stderr']:.1f}" if score["stderr"] is not None else ""
        bar = Text("█" * round(score["accuracy"] * _BAR_CELLS), style="green" if name == "trained" else "bright_black")
        table.add_row("Accuracy" if name == "base" else "", name, numbers.percent(score["accuracy"], 1), error, bar)
    difference = evaluate.get("difference")
    ratio = standard_errors(difference)
    if difference and difference["mean"] is not None:
        note = f"{numbers.nats(ratio)} standard errors, " if ratio is not None else ""
        table.add_row(
            "", "difference", numbers.points(difference["mean"]), "points", Text(note, style="dim") + problems
        )
    else:
        table.add_row("", "measured on", "", "", problems)
    kl = (evaluate.get("kl") or {}).get("trained")
    if kl and kl["mean"] is not None:
        note = Text("from the base model, on its own samples", style="dim")
        table.add_row("", "KL", f"{kl['mean']:.3f}", "nats", note)
    for each in evaluate.get("retention") or []:
        table.add_row("", each["suite"], numbers.points(each["mean"]), "points", Text("retention", style="dim"))
    table.add_section()


def _work(table: Table, what: str, tokens: int, result: dict[str, Any]) -> None:
    speed = Text(f"{numbers.count(result['tokens_per_s'])} tokens/s, {span(result['seconds'])}", style="dim")
    table.add_row("", what, numbers.count(tokens), "tokens", speed, end_section=True)


def _absent(table: Table, name: str) -> None:
    table.add_row(name, Text("has not run", style="dim"), end_section=True)
