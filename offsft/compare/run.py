"""Training and evaluating every arm of a comparison, resumably, and the table that comes out."""

import json
from typing import Any

from offsft.compare.figure import write_figure
from offsft.compare.table import Measured, table_rows, write_table
from offsft.config import Arm, Recipe
from offsft.console import Console, span
from offsft.engine_actor import SamplerFactory
from offsft.evaluate.run import accuracy_by_problem, run_evaluate
from offsft.pipeline import resolve_model
from offsft.ray_session import ray_session
from offsft.rewrite.pipeline import run_rewrite
from offsft.run_folder import RunFolder
from offsft.run_lock import held
from offsft.storage import StoragePath, remove
from offsft.storage_fault import check_reachable
from offsft.train.run import train

SUITE = "held_out"
"""Name of the evaluation's problems in the table."""


def run_compare(recipe: Recipe, console: Console, *, sampler_factory: SamplerFactory | None = None) -> None:
    """Rewrite once, train each arm with each seed, evaluate all on the same problems, write table and figures.

    Each arm and seed has a run's folder of its own below `arms/`; what is finished is not done again.

    Raises:
        OffsftError: whatever stops a stage for a reason that the user can act on.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    with held(folder.path):
        folder.open(recipe)
        _compare(recipe, folder, console, sampler_factory)


def _compare(recipe: Recipe, folder: RunFolder, console: Console, sampler_factory: SamplerFactory | None) -> None:
    arms = [(arm, seed, _arm_folder(folder, arm, seed)) for arm in recipe.compare.arms for seed in recipe.compare.seeds]
    if any(place.result("evaluate") is None for place in (folder, *(place for *_, place in arms))):
        console.quiet(folder.logs / "driver.log")
        console.progress("starting")
        model = resolve_model(recipe.model)
        with ray_session(recipe.cluster):
            if folder.result("rewrite") is None:
                result = run_rewrite(recipe, folder, model, console, sampler_factory=sampler_factory)
                folder.finish("rewrite", result)
            _evaluate(recipe, folder, {"base": model}, console, sampler_factory)
            for number, (arm, seed, place) in enumerate(arms, start=1):
                if place.result("evaluate") is None:
                    console.say(f"compare: {arm.name}, seed {seed} ({number} of {len(arms)})")
                    _run_arm(arm_recipe(recipe, arm, seed, place), place, model, console, sampler_factory)
    _write(recipe, folder, arms, console)


def arm_recipe(recipe: Recipe, arm: Arm, seed: int, place: RunFolder) -> Recipe:
    """The comparison's recipe with an arm's objective and data, a seed, and a folder of its own."""
    changed = {"objective": arm.objective, "responses": arm.responses, "source_weights": arm.source_weights}
    if arm.learning_rate is not None:
        changed["learning_rate"] = arm.learning_rate
    training = recipe.train.model_copy(update=changed)
    return recipe.model_copy(update={"run": str(place.path), "seed": seed, "train": training})


def _arm_folder(folder: RunFolder, arm: Arm, seed: int) -> RunFolder:
    return RunFolder(str(folder.path / "arms" / f"{arm.name}-{seed}"), rewrites=folder.rewrites)


def _run_arm(
    recipe: Recipe, place: RunFolder, model: str, console: Console, sampler_factory: SamplerFactory | None
) -> None:
    place.open(recipe)
    if place.result("train") is None:
        result = train(recipe, place, model, console)
        place.finish("train", result)
        console.say(f"train: {result['steps']} steps, final nll {result['final_nll']:.4f}, {span(result['seconds'])}")
    _evaluate(recipe, place, {"trained": str(place.model)}, console, sampler_factory)
    remove(place.checkpoints)
    if not recipe.compare.keep_models:
        remove(place.model)


def _evaluate(
    recipe: Recipe,
    place: RunFolder,
    models: dict[str, str],
    console: Console,
    sampler_factory: SamplerFactory | None,
) -> None:
    if place.result("evaluate") is None:
        result = run_evaluate(recipe, place, models, console, sampler_factory=sampler_factory)
        place.finish("evaluate", result)
        scores = ", ".join(f"{name} {result[name]['accuracy']:.1%}" for name in models)
        console.say(f"evaluate: {scores}, {span(result['seconds'])}")


def _write(recipe: Recipe, folder: RunFolder, arms: list[tuple[Arm, int, RunFolder]], console: Console) -> None:
    rewriting = folder.result("rewrite") or {}
    measured = [Measured("Base", None, False, [accuracy_by_problem(folder.evaluation / "base")], [], [], {})]
    for arm in recipe.compare.arms:
        places = [place for other, _, place in arms if other is arm]
        rewritten = arm.responses == "kept"
        measured.append(
            Measured(
                arm.name,
                arm.objective.kind,
                rewritten,
                [accuracy_by_problem(place.evaluation / "trained") for place in places],
                [_metrics(place.path / "metrics.jsonl") for place in places],
                [place.result("train") or {} for place in places],
                rewriting if rewritten else {},
            )
        )
    rows = table_rows(measured, SUITE)
    write_table(rows, folder.path)
    write_figure(rows, measured, folder.path / "compare.png")
    console.done()
    console.rich.print((folder.path / "table.md").read_text(encoding="utf-8"), markup=False)
    console.say(f"compare: {folder.path / 'table.json'}, table.md and compare.png beside it")


def _metrics(path: StoragePath) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
