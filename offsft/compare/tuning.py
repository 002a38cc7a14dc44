"""Choosing each arm's learning rate: the same few rates for every arm, judged on problems that are not reported."""

from dataclasses import asdict
from typing import Any

from offsft.compare.arms import ArmRun, arm_run, discard, validate_arm
from offsft.config import Recipe
from offsft.data.suite_intake import problem_suites
from offsft.data.suites import HELD_OUT, find_suites
from offsft.errors import ConfigError
from offsft.evaluate.statistics import estimate, share_correct
from offsft.evaluate.table import answered_by_suite, read_verdicts
from offsft.pipeline.stages import StageContext
from offsft.storage.paths import StoragePath, write_json
from offsft.storage.run_folder import RunFolder

Grid = dict[str, list[dict[str, Any]]]
"""By arm: each learning rate with its validation accuracy and 95 % interval."""


def tune(base: StageContext) -> dict[str, float | None]:
    """Train every arm with every learning rate and the first seed, and choose; None for an arm without a choice.

    Writes `tuning.json`. Models that were not chosen are deleted.
    """
    settings = base.recipe.compare
    if not settings.learning_rates:
        return dict.fromkeys((arm.name for arm in settings.arms), None)
    runs = tuning_runs(base.recipe, base.folder)
    for number, run in enumerate(runs, start=1):
        if settings.validation_problems and run.validation.result("evaluate") is None:
            base.console.say(f"compare: {run.title} (learning rates: {number} of {len(runs)})")
            validate_arm(base, run)
    grid = read_grid(base.recipe, base.folder)
    chosen: dict[str, float | None] = {name: choose(entries) for name, entries in grid.items()}
    write_json(base.folder.path / "tuning.json", {"grid": grid, "chosen": chosen})
    for run in runs:
        if run.rate != chosen[run.arm.name]:
            discard(base.recipe, run)
    return chosen


def choose(entries: list[dict[str, Any]]) -> float:
    """The rate with the best validation accuracy; of equal ones the lowest, which moves the policy least."""
    return min(entries, key=lambda entry: (-(entry["mean"] or 0.0), entry["learning_rate"]))["learning_rate"]


def tuning_runs(recipe: Recipe, root: RunFolder) -> list[ArmRun]:
    """The trainings among which the learning rates are chosen."""
    settings = recipe.compare
    return [arm_run(root, arm, settings.seeds[0], rate) for arm in settings.arms for rate in settings.learning_rates]


def read_grid(recipe: Recipe, root: RunFolder) -> Grid:
    """Validation accuracy of every arm and learning rate; with a single rate nothing was validated."""
    grid: Grid = {arm.name: [] for arm in recipe.compare.arms}
    for run in tuning_runs(recipe, root):
        entry: dict[str, Any] = {"learning_rate": run.rate, "mean": None}
        if recipe.compare.validation_problems:
            suites = answered_by_suite(read_verdicts(run.validation.evaluation / "trained"))
            scores = [share_correct(each.samples) for suite in suites.values() for each in suite.values()]
            entry |= asdict(estimate(scores))
        grid[run.arm.name].append(entry)
    return grid


def validation_ids(recipe: Recipe, problems: StoragePath) -> frozenset[str]:
    """The first problems of each suite, which choose the learning rates and are not reported.

    Raises:
        ConfigError: they are all the problems that there are.
    """
    number = recipe.compare.validation_problems
    if not number:
        return frozenset()
    names = [suite.name for suite in find_suites(recipe.evaluate.suites)] or [HELD_OUT]
    by_suite: dict[str, list[str]] = {name: [] for name in names}
    for key, suite in problem_suites(problems):
        by_suite.get(suite, []).append(key)
    few = [f"{name} has {len(ids)}" for name, ids in by_suite.items() if len(ids) <= number]
    if few:
        raise ConfigError(
            f"compare.validation_problems={number} leave no problem to report on: {', '.join(few)}; set fewer, or evaluate"
            " on more"
        )
    return frozenset(key for ids in by_suite.values() for key in ids[:number])
