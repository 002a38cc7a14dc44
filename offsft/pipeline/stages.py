"""The stages of a run: each runs unless it is done, is marked as finished, and prints its result.

The pipeline runs them on one folder, the comparison on one folder per arm and seed. Both lock and open the folder and
start Ray first. A stage is finished once its result file exists, which is written last: the same call continues a
killed stage.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offsft.config import Recipe
from offsft.data.suites import HELD_OUT, find_suites
from offsft.errors import ConfigError, RunFolderError
from offsft.models import MODEL_LAST, resolve_model
from offsft.runtime.console import Console, span
from offsft.storage.paths import StoragePath, is_filled
from offsft.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from offsft.inference.spec import SamplerFactory

_TAKEN_NAMES = frozenset({"problems", "suites", "quarantine"})
"""Names of other folders next to those of the models' answers."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """The input of every stage of a run; `model` is the resolved policy, empty if no stage needs it."""

    recipe: Recipe
    folder: RunFolder
    model: str
    console: Console
    sampler_factory: "SamplerFactory | None" = None
    """Replaces the engines in tests."""
    reference: StoragePath | None = None
    """Answers of the model from which an evaluation measures the others' KL divergence; None: the first one's."""


def take_in(run: StageContext) -> None:
    """Read the recipe's problems into the folder, as the rewriting does first, unless that is done.

    Raises:
        OffsftError: the problems are missing, or no row is valid.
    """
    if is_filled(run.folder.problems):
        return
    from offsft.rewrite.run import take_in_problems

    take_in_problems(run.recipe, run.folder, run.model, run.console)


def rewrite(run: StageContext) -> None:
    """Rewrite the problems, unless that is done.

    Raises:
        OffsftError: the rewriting stops for a reason that the user can act on.
    """
    if run.folder.result("rewrite") is not None:
        return
    from offsft.rewrite.run import run_rewrite

    result = run_rewrite(run.recipe, run.folder, run.model, run.console, sampler_factory=run.sampler_factory)
    run.folder.finish("rewrite", result)
    sources = ", ".join(f"{source} {count}" for source, count in result["sources"].items())
    run.console.say(
        f"rewrite: {result['problems']} problems, {sources}, {result['generated_tokens']} tokens sampled,"
        f" {span(result['seconds'])}"
    )


def train(run: StageContext) -> None:
    """Train the policy on the folder's rewrites, unless that is done.

    Raises:
        RunFolderError: there are no finished rewrites.
        OffsftError: the training stops for a reason that the user can act on.
    """
    if run.folder.result("train") is not None:
        return
    if not run.folder.has_rewrites():
        raise RunFolderError(f"{run.folder.path} holds no finished rewrites; run jobs.rewrite with this recipe first")
    from offsft.train.run import train as run_train

    result = run_train(run.recipe, run.folder, run.model, run.console)
    run.folder.finish("train", result)
    run.console.say(
        f"train: {result['steps']} steps, {result['tokens']} tokens, final loss {result['final_loss']:.4f},"
        f" {span(result['seconds'])}"
    )


def evaluate(run: StageContext, models: Mapping[str, str] | None = None) -> None:
    """Evaluate the models (name to folder; None: those of `models_to_evaluate`), unless that is done.

    Raises:
        OffsftError: the evaluation stops for a reason that the user can act on.
    """
    if _is_evaluated(run.recipe, run.folder, list(models) if models else model_names(run.recipe, run.folder)):
        return
    from offsft.evaluate.run import run_evaluate
    from offsft.report.evaluation_page import write_evaluation_page

    models = models or models_to_evaluate(run)
    result = run_evaluate(
        run.recipe,
        run.folder,
        models,
        run.console,
        sampler_factory=run.sampler_factory,
        reference=run.reference,
    )
    write_evaluation_page(run.folder.path)
    # After the page: the result file says that the stage is complete.
    run.folder.finish("evaluate", result)
    _say_scores(run, models, result)


STAGES = {"rewrite": rewrite, "train": train, "evaluate": evaluate}
"""Each stage that works on a run's folder, by the name of its result file, in order."""


def is_finished(recipe: Recipe, folder: RunFolder, stage: str) -> bool:
    """Whether a stage is complete; an evaluation is not if suites or models were added to it."""
    if stage == "evaluate":
        return _is_evaluated(recipe, folder, model_names(recipe, folder))
    return folder.result(stage) is not None


def unfinished(recipe: Recipe, folder: RunFolder, stages: Sequence[str]) -> list[str]:
    """The given stages that are not finished."""
    return [stage for stage in stages if not is_finished(recipe, folder, stage)]


def model_names(recipe: Recipe, folder: RunFolder) -> list[str]:
    """Names of the models that an evaluation compares: the recipe's, else the policy and the model trained from it."""
    named = list(named_models(recipe.evaluate.models))
    return named or (["base", "trained"] if is_filled(folder.model, MODEL_LAST) else ["base"])


def models_to_evaluate(run: StageContext) -> dict[str, str]:
    """Maps each name of `model_names` to a folder or Hugging Face name.

    Raises:
        ModelError: the model does not exist.
    """
    settings = run.recipe.model
    named = named_models(run.recipe.evaluate.models)
    if not named:
        return {
            name: run.model if name == "base" else str(run.folder.model) for name in model_names(run.recipe, run.folder)
        }
    return {
        name: resolve_model(
            # `model.revision` applies to `model.path` only.
            settings.model_copy(
                update={"path": path, "revision": settings.revision if path == settings.path else None}
            ),
            "evaluate.models",
        )
        for name, path in named.items()
    }


def named_models(entries: list[str]) -> dict[str, str]:
    """Maps the names in `evaluate.models` to paths; an entry is `name=path`, or a path that gives the name.

    Raises:
        ConfigError: a name is not valid, is taken, or is used for two models.
    """
    models: dict[str, str] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals or "/" in name:  # a name has no slash, and a path may contain `=`
            parts = [part for part in Path(entry).parts if part != "model"]
            name, path = (parts[-1] if parts else entry), entry
        if not re.fullmatch(r"[\w.+-]+", name) or name in _TAKEN_NAMES or not path:
            raise ConfigError(f"evaluate.models: {entry!r} gives no good name for a model; write name=path")
        if name in models:
            raise ConfigError(f"evaluate.models: two models are named {name}; write name=path for one of them")
        models[name] = path
    return models


def display_path(path: StoragePath) -> str:
    """A path as the user would type it."""
    if isinstance(path, Path) and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _is_evaluated(recipe: Recipe, folder: RunFolder, models: list[str]) -> bool:
    result = folder.result("evaluate") or {}
    settings = recipe.evaluate
    named = [] if settings.suites else [HELD_OUT]
    suites = [*named, *(suite.name for suite in find_suites([*settings.suites, *settings.retention]))]
    return (result.get("suites"), result.get("models")) == (suites, models)


def _say_scores(run: StageContext, models: Mapping[str, str], result: dict[str, Any]) -> None:
    if run.recipe.evaluate.suites or run.recipe.evaluate.models:
        table = (run.folder.path / "evaluation.md").read_text(encoding="utf-8")
        run.console.rich.print(table, markup=False)
        run.console.say(
            f"evaluate: {result['problems']} problems, {span(result['seconds'])};"
            f" {display_path(run.folder.path)}/evaluation.html to browse the answers, .md, .csv and .json beside it"
        )
    else:
        scores = ", ".join(f"{name} {result[name]['accuracy']:.1%}" for name in models)
        run.console.say(f"evaluate: {result['problems']} held-out problems, {scores}, {span(result['seconds'])}")
