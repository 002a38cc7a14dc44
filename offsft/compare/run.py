"""Trains and evaluates every arm of a comparison, resumably, and writes the resulting table."""

import json
from typing import Any

from offsft.compare.arms import ArmRun, arm_run, evaluate_arm, needed_rewrites
from offsft.compare.figure import write_figure
from offsft.compare.table import ArmAnswers, ArmResult, table_rows, write_table
from offsft.compare.tuning import Grid, read_grid, tune, validation_ids
from offsft.config import Recipe
from offsft.data.suites import HELD_OUT, find_suites
from offsft.errors import RunFolderError
from offsft.evaluate.run import retention_suites
from offsft.evaluate.table import answered_by_suite, read_verdicts
from offsft.inference.spec import SamplerFactory
from offsft.models import resolve_model
from offsft.pipeline.checks import check_input, settle_changes, used_folders
from offsft.pipeline.dry_run import refuse_what_stops
from offsft.pipeline.stages import STAGES, StageContext, evaluate, rewrite
from offsft.runtime.console import Console
from offsft.runtime.nodes import check_nodes
from offsft.runtime.session import ray_session
from offsft.storage.faults import check_reachable
from offsft.storage.paths import read_json_lines
from offsft.storage.run_folder import RunFolder
from offsft.storage.run_lock import lock_run


def run_compare(recipe: Recipe, console: Console, *, sampler_factory: SamplerFactory | None = None) -> None:
    """Rewrite once, train each arm with each seed, evaluate all on the same problems, and write table and figure.

    With `compare.learning_rates`, every arm is first trained with each of them, and the validation problems choose. Each
    training has a run folder of its own below `arms/`; finished work is not done again.

    Raises:
        OffsftError: a stage stops for a reason that the user can act on.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    for arm, rewrites in needed_rewrites(folder, recipe.compare.arms):
        if not (rewrites.parent / "rewrite.json").exists():
            raise RunFolderError(
                f"compare.arms: {arm.name} trains on {rewrites}, which holds no finished rewrites; run jobs.rewrite there"
                " first"
            )
    chosen = _all_chosen(recipe, folder)
    if chosen is None or _unfinished(folder, _runs(recipe, folder, chosen)):
        check_input(recipe, folder, tuple(STAGES))
    with lock_run(folder.path):
        folder.open(recipe)
        settle_changes(recipe, folder, console)
        _compare(recipe, folder, console, sampler_factory)


def _runs(recipe: Recipe, folder: RunFolder, chosen: dict[str, float | None]) -> list[ArmRun]:
    """The trainings that the table reports: every arm with every seed, at its chosen learning rate."""
    settings = recipe.compare
    return [arm_run(folder, arm, seed, chosen.get(arm.name)) for arm in settings.arms for seed in settings.seeds]


def _unfinished(folder: RunFolder, runs: list[ArmRun]) -> list[RunFolder]:
    return [place for place in (folder, *(run.folder for run in runs)) if place.result("evaluate") is None]


def _compare(recipe: Recipe, folder: RunFolder, console: Console, sampler_factory: SamplerFactory | None) -> None:
    chosen = _all_chosen(recipe, folder)
    if chosen is None or _unfinished(folder, _runs(recipe, folder, chosen)):
        console.quiet(folder.logs / "driver.log")
        console.progress("starting")
        model = resolve_model(recipe.model)
        refuse_what_stops(recipe, model, tuple(STAGES), console)
        with ray_session(recipe.cluster):
            check_nodes(folder.path, used_folders(recipe, ["rewrite"], model), console)
            base = StageContext(recipe, folder, model, console, sampler_factory, folder.evaluation / "base")
            rewrite(base)
            # An arm's model may be deleted after its evaluation, so a finished arm ignores suites added later.
            if folder.result("evaluate") is None:
                evaluate(base, {"base": model})
            validation_ids(recipe, folder.evaluation / "problems")
            chosen = tune(base)
            runs = _runs(recipe, folder, chosen)
            for number, run in enumerate(runs, start=1):
                if run.folder.result("evaluate") is None:
                    console.say(f"compare: {run.title} ({number} of {len(runs)})")
                    evaluate_arm(base, run)
    _write(recipe, folder, chosen, console)


def _all_chosen(recipe: Recipe, folder: RunFolder) -> dict[str, float | None] | None:
    """The learning rate of every arm, None in the place of one that the recipe sets; None if some have to be tried."""
    settings = recipe.compare
    if not settings.learning_rates:
        return dict.fromkeys((arm.name for arm in settings.arms), None)
    path = folder.path / "tuning.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"grid": {}, "chosen": {}}
    tried = {name: {entry["learning_rate"] for entry in entries} for name, entries in held["grid"].items()}
    wanted = {arm.name: set(settings.learning_rates) for arm in settings.arms}
    return {name: held["chosen"][name] for name in wanted} if wanted.items() <= tried.items() else None


def _write(recipe: Recipe, folder: RunFolder, chosen: dict[str, float | None], console: Console) -> None:
    left_out = validation_ids(recipe, folder.evaluation / "problems")
    retention = retention_suites(recipe.evaluate)
    grid: Grid = read_grid(recipe, folder) if recipe.compare.learning_rates else {}

    def answers(place: RunFolder, name: str) -> ArmAnswers:
        kl = (place.result("evaluate") or {}).get("kl", {}).get(name)
        suites = answered_by_suite(read_verdicts(place.evaluation / name))
        return ArmAnswers.of(suites, retention, left_out, None if kl is None else kl["mean"])

    measured = [ArmResult("Base", None, False, [answers(folder, "base")], [], [], {})]
    for arm in recipe.compare.arms:
        places = [run.folder for run in _runs(recipe, folder, chosen) if run.arm is arm]
        rewritten = arm.responses == "kept"
        measured.append(
            ArmResult(
                arm.name,
                arm.objective.kind,
                rewritten,
                [answers(place, "trained") for place in places],
                [read_json_lines(place.path / "metrics.jsonl") for place in places],
                [place.result("train") or {} for place in places],
                _rewriting(places[0]) if rewritten else {},
                chosen.get(arm.name) or arm.learning_rate or recipe.train.learning_rate,
                grid.get(arm.name, []),
            )
        )
    rows = table_rows(measured, " ".join(suite.name for suite in find_suites(recipe.evaluate.suites)) or HELD_OUT)
    write_table(rows, folder.path)
    write_figure(rows, measured, folder.path / "compare.png")
    console.done()
    console.rich.print((folder.path / "table.md").read_text(encoding="utf-8"), markup=False)
    console.say(f"compare: {folder.path / 'table.json'}, table.md and compare.png beside it")


def _rewriting(place: RunFolder) -> dict[str, Any]:
    """The result of the rewriting that an arm trains on."""
    path = place.rewrites.parent / "rewrite.json"
    return json.loads(path.read_text(encoding="utf-8"))
