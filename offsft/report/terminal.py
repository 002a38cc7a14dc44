"""The end of a run, on the terminal."""

from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from offsft.console import span
from offsft.records import Source
from offsft.report import numbers
from offsft.report.summary import standard_errors

_BAR_CELLS = 24
_COLORS = {Source.SELF: "blue", Source.GUIDED: "yellow", Source.EXPERT: "magenta"}


def summary_table(summary: dict[str, Any]) -> RenderableType:
    """One compact table of what `write_summary` returned; stages that have not run say so."""
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
    for index, source in enumerate(Source):
        kept = rewrite[source]
        share = kept / problems if problems else 0.0
        bar = Text("█" * round(share * _BAR_CELLS), style=_COLORS[source])
        table.add_row("" if index else "Rewriting", source, numbers.count(kept), numbers.percent(share), bar)
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
    note = Text("nats a token under the policy", style="dim")
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
    table.add_section()


def _work(table: Table, what: str, tokens: int, result: dict[str, Any]) -> None:
    speed = Text(f"{numbers.count(result['tokens_per_s'])} tokens/s, {span(result['seconds'])}", style="dim")
    table.add_row("", what, numbers.count(tokens), "tokens", speed, end_section=True)


def _absent(table: Table, name: str) -> None:
    table.add_row(name, Text("has not run", style="dim"), end_section=True)
