"""Checks a run's input before anything is started, and the origin of its problems whenever it is resumed."""

from collections.abc import Sequence

from offsft.config import Recipe
from offsft.data.files import existing_files
from offsft.data.intake_record import Which, changed_files, is_same_model, read_record, stamp_files
from offsft.data.suites import find_suites, load_suite
from offsft.errors import ConfigError, DataError, RunFolderError
from offsft.inference.engines import check_engine
from offsft.models import resolve_folder
from offsft.pipeline.stages import named_models
from offsft.runtime.console import Console
from offsft.storage.paths import is_filled
from offsft.storage.run_folder import LEFT_BY, RunFolder
from offsft.verify import check_verifier


def check_input(recipe: Recipe, folder: RunFolder, stages: Sequence[str], *, weights: bool = True) -> None:
    """Check the stages' input now, not after Ray has started or the training is over; `weights` includes the policy's.

    Raises:
        ConfigError: a file or folder that a setting names does not exist, or an engine's argument is unknown.
        OffsftError: one exists but cannot be used.
    """
    if weights and stages and needs_policy(recipe, stages):
        resolve_folder(recipe.model)
    if "rewrite" in stages and not is_filled(folder.problems) and recipe.data.path != "generated":
        existing_files(recipe.data, "data.path")
    if set(stages) - {"train"}:
        check_engine(recipe.engine)
        check_verifier(recipe.verify)
    if recipe.engine.kind == "remote" and {"train", "evaluate"} <= set(stages):
        raise ConfigError(
            "engine.kind=remote samples from one model, and the evaluation compares two, before and after training; run"
            " jobs.rewrite and jobs.train with this recipe, then jobs.evaluate with engine.kind=vllm"
        )
    if "evaluate" in stages:
        _check_evaluation(recipe, folder)


def _check_evaluation(recipe: Recipe, folder: RunFolder) -> None:
    for path in named_models(recipe.evaluate.models).values():
        resolve_folder(recipe.model.model_copy(update={"path": path}), "evaluate.models")
    for suite in find_suites([*recipe.evaluate.suites, *recipe.evaluate.retention]):
        check_verifier(suite.verifier(recipe.verify))
        load_suite(suite, recipe.evaluate.suite_folder)
    if recipe.evaluate.suites:
        return
    if not folder.evaluation.exists() and recipe.evaluate.path != "generated":
        existing_files(recipe.evaluate, "evaluate.path")


def needs_policy(recipe: Recipe, stages: Sequence[str]) -> bool:
    """Whether the policy itself is loaded; an evaluation of other models may not need it."""
    return list(stages) != ["evaluate"] or not recipe.evaluate.models


def used_folders(recipe: Recipe, stages: Sequence[str], model: str) -> dict[str, str]:
    """The models that the nodes of a cluster load, by setting: folders, and names that are no folders here."""
    found = {"model.path": model}
    if "evaluate" in stages:
        for name, path in named_models(recipe.evaluate.models).items():
            folder = resolve_folder(recipe.model.model_copy(update={"path": path}), "evaluate.models")
            found |= {f"evaluate.models={name}": folder} if folder else {}
    return found


def settle_changes(recipe: Recipe, folder: RunFolder, console: Console) -> None:
    """Check the files that the run's problems came from; call it with the folder locked, before checking its stages.

    If `data.on_change` is `add` and a data file has changed, the rewriting becomes unfinished again.

    Raises:
        RunFolderError: a data file or the policy's weights have changed since.
    """
    _settle_held_out(recipe, folder, console)
    record = read_record(folder.path, "data")
    if record is None or not is_filled(folder.problems):
        return
    if not is_same_model(record, recipe.model):
        raise RunFolderError(
            f"model.path={recipe.model.path} holds other files than when {folder.path.name}/ was begun, and one run is of one"
            " policy; put them back, or give this experiment a folder of its own (run=...)"
        )
    changed = _find_changes(recipe, folder, "data", console)
    if not changed:
        return
    if recipe.data.on_change == "refuse":
        raise RunFolderError(
            f"{_since(folder, changed)}; put it back, give this experiment a folder of its own (run=...), or have the new"
            " problems rewritten too with data.on_change=add"
        )
    if folder.has_begun("train") or (folder.path / "arms").exists():
        raise RunFolderError(
            f"{_since(folder, changed)}, and the training on what was taken in has begun; put it back, give this experiment"
            f" a folder of its own (run=...), or, to train anew on all, delete {LEFT_BY['train']}, or arms/, of {folder.path}"
        )
    folder.reopen("rewrite")


def _settle_held_out(recipe: Recipe, folder: RunFolder, console: Console) -> None:
    if recipe.evaluate.suites or not is_filled(folder.evaluation / "problems"):
        return
    changed = _find_changes(recipe, folder, "evaluate", console)
    if changed:
        raise RunFolderError(
            f"{_since(folder, changed)}; put it back, give this experiment a folder of its own (run=...), or, to evaluate"
            f" on what is there now, delete {LEFT_BY['evaluate']} of {folder.path}"
        )


def _find_changes(recipe: Recipe, folder: RunFolder, which: Which, console: Console) -> list[str]:
    record = read_record(folder.path, which)
    rows = recipe.data if which == "data" else recipe.evaluate
    if record is None or rows.path == "generated":
        return []
    try:
        return changed_files(record, stamp_files(rows, f"{which}.path", record))
    except (ConfigError, DataError) as error:
        console.say(f"note: {error}; {folder.path.name}/ goes on with the problems that it took in before")
        return []


def _since(folder: RunFolder, changed: list[str]) -> str:
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"{changed[0]}{more}, since {folder.path.name}/ took its problems in"
