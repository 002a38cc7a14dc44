"""Trains each objective for a few steps, resumably, and writes the table and the recommendation."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from offsft.config import Recipe, objective_name
from offsft.config.objective import Objective
from offsft.data.files import existing_files
from offsft.errors import RunFolderError
from offsft.models import resolve_model
from offsft.pipeline.checks import check_input, settle_changes, used_folders
from offsft.pipeline.dry_run import refuse_what_stops
from offsft.pipeline.stages import StageContext, display_path, take_in, train
from offsft.probe.figures import TRAINED, Trial, describe_text, own_sources, read_texts, read_trial
from offsft.probe.rule import Decision, decide
from offsft.probe.sample import Sample, open_sample, trial_settings
from offsft.probe.table import as_json, markdown, setting_of, terminal_table
from offsft.runtime.console import Console
from offsft.runtime.nodes import check_nodes
from offsft.runtime.session import ray_session
from offsft.storage.faults import check_reachable
from offsft.storage.paths import StoragePath, is_filled, remove, write_json, write_text_atomically
from offsft.storage.run_folder import RunFolder
from offsft.storage.run_lock import lock_run


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One objective's training, in a run folder of its own."""

    objective: Objective
    folder: RunFolder

    @property
    def is_trained(self) -> bool:
        return self.folder.result("train") is not None


def run_probe(recipe: Recipe, console: Console) -> dict[str, Any]:
    """Train with each of `probe.objectives` unless that is done, and write probe.json and probe.md; returns probe.json.

    Raises:
        OffsftError: there is nothing to train on, or a training stops for a reason that the user can act on.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    responses = recipe.probe.responses or recipe.train.responses
    probed = recipe.model_copy(update={"train": recipe.train.model_copy(update={"responses": responses})})
    _check_input(probed, folder)
    with lock_run(folder.path):
        folder.open(recipe)  # as it is: the run's own training may have begun with other responses
        settle_changes(recipe, folder, console)
        _check_rewrites(probed, folder)  # they are unfinished again where problems were added
        return _probe(probed, folder, console)


def _check_input(recipe: Recipe, folder: RunFolder) -> None:
    """Before the lock, which makes the folder: a recipe with missing input leaves no folder behind."""
    _check_rewrites(recipe, folder)
    check_input(recipe, folder, ("train",))
    if not folder.has_rewrites() and not is_filled(folder.problems) and recipe.data.path != "generated":
        existing_files(recipe.data, "data.path")


def _check_rewrites(recipe: Recipe, folder: RunFolder) -> None:
    if recipe.train.responses == "kept" and not folder.has_rewrites():
        raise RunFolderError(
            f"{folder.path} holds no finished rewrites; run jobs.rewrite with this recipe first, or probe on the expert's"
            " solutions with probe.responses=expert"
        )


def _probe(recipe: Recipe, folder: RunFolder, console: Console) -> dict[str, Any]:
    console.quiet(folder.logs / "driver.log")
    console.progress("starting")
    model = resolve_model(recipe.model)
    base = StageContext(recipe, folder, model, console)
    with ExitStack() as session:  # Ray is started once, and only if there is something to do
        if not folder.has_rewrites() and not is_filled(folder.problems):
            session.enter_context(ray_session(recipe.cluster))
            take_in(base)
        sample = open_sample(recipe, folder, model)
        runs = [trial_run(sample.folder, sample.rewrites, objective) for objective in recipe.probe.objectives]
        if not all(run.is_trained for run in runs):
            refuse_what_stops(recipe, model, ("train",), console)
            session.enter_context(ray_session(recipe.cluster))
            check_nodes(folder.path, used_folders(recipe, ["train"], model), console)
            _train_all(base, runs, sample)
    for run in runs:  # also of one that was killed between its result and this
        _discard(recipe, run)
    return _write(recipe, folder, sample, runs, console)


def trial_run(root: StoragePath, rewrites: StoragePath, objective: Objective) -> TrialRun:
    """The run of an objective below the probe's folder."""
    name = re.sub(r"[^\w.=+-]+", "-", objective_name(objective))
    return TrialRun(objective, RunFolder(str(root / name), rewrites=rewrites))


def trial_recipe(recipe: Recipe, run: TrialRun, sample: Sample) -> Recipe:
    """The recipe with an objective, the probe's rows and steps, and a separate folder."""
    changed = trial_settings(sample.split) | {"objective": run.objective}
    return recipe.model_copy(
        update={"run": str(run.folder.path), "train": recipe.train.model_copy(update=changed)},
    )


def _train_all(base: StageContext, runs: Sequence[TrialRun], sample: Sample) -> None:
    for number, run in enumerate(runs, start=1):
        if run.is_trained:
            continue
        base.console.say(f"probe: {objective_name(run.objective)} ({number} of {len(runs)})")
        context = replace(base, recipe=trial_recipe(base.recipe, run, sample), folder=run.folder)
        run.folder.open(context.recipe)
        train(context)
        _discard(base.recipe, run)


def _discard(recipe: Recipe, run: TrialRun) -> None:
    """Delete what a training leaves that nothing needs any more: checkpoints, and the model unless models are kept."""
    remove(run.folder.checkpoints)
    if not recipe.probe.keep_models:
        remove(run.folder.model)
        remove(run.folder.adapter)


def _write(
    recipe: Recipe, folder: RunFolder, sample: Sample, runs: Sequence[TrialRun], console: Console
) -> dict[str, Any]:
    responses, own = recipe.train.responses, own_sources(recipe.rewrite)
    trials = [read_trial(run.folder, run.objective, responses, own) for run in runs]
    before = read_texts(runs[0].folder.gap / "trained" / "before", responses, own)  # the same for every objective
    texts = {name: describe_text(rows) for name, rows in before.items()}
    decision = decide(trials, recipe.train.objective, texts[TRAINED])
    setting = setting_of(decision.objective, recipe.train.objective)
    found = _as_json(recipe, sample, trials, decision, texts, setting)
    write_json(folder.path / "probe.json", found)
    write_text_atomically(folder.path / "probe.md", markdown(trials, decision, texts, setting))
    console.done()
    console.rich.print(terminal_table(trials))
    for reason in decision.reasons:
        console.say(f"  {reason}")
    console.say(f"probe: {decision.summary}")
    console.say(f"probe: {setting}")
    console.say(f"probe: {display_path(folder.path / 'probe.md')}, and probe.json beside it")
    return found


def _as_json(
    recipe: Recipe,
    sample: Sample,
    trials: Sequence[Trial],
    decision: Decision,
    texts: dict[str, dict[str, Any]],
    setting: str,
) -> dict[str, Any]:
    split = sample.split
    return {
        "recommended": decision.objective.model_dump(mode="json"),
        "setting": setting,
        "verdict": decision.verdict,
        "tied": decision.tied,
        "summary": decision.summary,
        "reasons": decision.reasons,
        "responses": recipe.train.responses,
        "train_rows": split.trained,
        "held_out_rows": split.held_out,
        "steps": split.steps,
        "sources": sample.sources,
        "learning_rate": recipe.train.learning_rate,
        "texts": texts,
        "objectives": [as_json(trial) for trial in trials],
        "folder": str(sample.folder),
    }
