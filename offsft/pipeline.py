"""The whole method on one run's folder: rewrite, train, evaluate, report; each stage done once."""

import re
from collections.abc import Sequence
from pathlib import Path

from offsft.config import Model, Recipe
from offsft.console import Console, span
from offsft.errors import ConfigError, ModelError, RunFolderError
from offsft.evaluate.suites import HELD_OUT, find_suites, load_suite
from offsft.model_files import MODEL_LAST
from offsft.problem_files import existing_files
from offsft.run_folder import RunFolder
from offsft.run_lock import held
from offsft.storage import StoragePath, at, is_filled
from offsft.storage_fault import check_reachable

STAGES = ("rewrite", "train", "evaluate", "report")
_TAKEN_NAMES = frozenset({"problems", "suites", "quarantine"})
"""Names of folders beside the models' answers."""


def run_stages(recipe: Recipe, stages: Sequence[str], console: Console) -> None:
    """Run the stages that are not finished yet, in order, and leave the rest as it is.

    Raises:
        OffsftError: whatever stops a stage for a reason that the user can act on.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    work = [stage for stage in stages if stage != "report"]
    if work:
        with held(folder.path):
            _work(recipe, work, folder, console)
    if "report" in stages:
        _report(folder, console)


def _work(recipe: Recipe, stages: list[str], folder: RunFolder, console: Console) -> None:
    folder.open(recipe)
    unfinished = [stage for stage in stages if not _finished(recipe, folder, stage)]
    for stage in stages:
        if stage not in unfinished:
            console.say(f"{stage}: already done")
    if unfinished:
        _check_input(recipe, folder, unfinished)
        console.quiet(folder.logs / "driver.log")
        _run_on_ray(recipe, unfinished, folder, console)


def _check_input(recipe: Recipe, folder: RunFolder, stages: list[str]) -> None:
    """A problem file that is missing is found now, and not after Ray has started or the training is over."""
    if "rewrite" in stages and not is_filled(folder.problems) and recipe.data.path != "generated":
        existing_files(recipe.data.paths, "data.path")
    if "evaluate" not in stages:
        return
    if recipe.evaluate.suites:
        for suite in find_suites(recipe.evaluate.suites):
            load_suite(suite, recipe.evaluate.suite_folder)
    elif not folder.evaluation.exists() and recipe.evaluate.path != "generated":
        existing_files(recipe.evaluate.paths, "evaluate.path")


def _run_on_ray(recipe: Recipe, stages: list[str], folder: RunFolder, console: Console) -> None:
    from offsft.ray_session import ray_session

    console.progress("starting")
    # An evaluation of other models may do without the policy.
    needs_policy = stages != ["evaluate"] or not recipe.evaluate.models
    model = resolve_model(recipe.model) if needs_policy else ""
    with ray_session(recipe.cluster):
        for stage in stages:
            _STAGE_FUNCTIONS[stage](recipe, folder, model, console)


def named_models(entries: list[str]) -> dict[str, str]:
    """Path by name of the models of `evaluate.models`: `name=path`, or a path that names itself.

    Raises:
        ConfigError: a name is no name, is taken, or stands for two models.
    """
    models: dict[str, str] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals:
            parts = [part for part in Path(entry).parts if part != "model"]
            name, path = (parts[-1] if parts else entry), entry
        if not re.fullmatch(r"[\w.+-]+", name) or name in _TAKEN_NAMES or not path:
            raise ConfigError(f"evaluate.models: {entry!r} gives no good name for a model; write name=path")
        if name in models:
            raise ConfigError(f"evaluate.models: two models are named {name}; write name=path for one of them")
        models[name] = path
    return models


def resolve_model(model: Model, setting: str = "model.path") -> str:
    """Folder or name of the policy that the engines load; the embedded model is unpacked on first use.

    Raises:
        ModelError: there is no such model.
    """
    if model.path == "embedded":
        from offsft.demo.model import embedded_model

        return str(embedded_model())
    path = at(model.path, setting)
    check_reachable(path, setting)
    if path.is_dir():
        if not (path / MODEL_LAST).is_file():
            raise ModelError(
                f"{setting}={model.path} has no {MODEL_LAST}; give the folder of a Hugging Face model, whole"
            )
        if not model.pickled_weights and not any(path.glob("*.safetensors")):
            raise ModelError(
                f"{setting}={model.path} holds no *.safetensors; save the model as safetensors, or set"
                " model.pickled_weights=true if you trust whoever made its files"
            )
        return str(path.resolve())
    if model.path.startswith((".", "/", "~", "s3://")):
        raise ModelError(f"{setting}={model.path} does not exist; give a folder, a Hugging Face name, or `embedded`")
    return _check_hub_name(model, setting)


def _check_hub_name(model: Model, setting: str) -> str:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{setting}={model.path} is neither a folder nor a model that can be fetched: {reason}"
        ) from None
    return model.path


def _finished(recipe: Recipe, folder: RunFolder, stage: str) -> bool:
    result = folder.result(stage)
    if stage != "evaluate" or result is None:
        return result is not None
    suites = [suite.name for suite in find_suites(recipe.evaluate.suites)] or [HELD_OUT]
    models = list(named_models(recipe.evaluate.models)) or (
        ["base", "trained"] if is_filled(folder.model, MODEL_LAST) else ["base"]
    )
    return (result.get("suites"), result.get("models")) == (suites, models)


def _rewrite(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> None:
    from offsft.rewrite.pipeline import run_rewrite

    result = run_rewrite(recipe, folder, model, console)
    folder.finish("rewrite", result)
    console.say(
        f"rewrite: {result['problems']} problems, self {result['self']}, guided {result['guided']},"
        f" expert {result['expert']}, {result['generated_tokens']} tokens sampled, {span(result['seconds'])}"
    )


def _train(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> None:
    from offsft.train.run import train

    if folder.result("rewrite") is None:
        raise RunFolderError(f"{folder.path} holds no finished rewrites; run jobs.rewrite with this recipe first")
    result = train(recipe, folder, model, console)
    folder.finish("train", result)
    console.say(
        f"train: {result['steps']} steps, {result['tokens']} tokens, final loss {result['final_loss']:.4f},"
        f" {span(result['seconds'])}"
    )


def _evaluate(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> None:
    from offsft.evaluate.run import run_evaluate
    from offsft.report.evaluation_page import write_evaluation_page

    models = {}
    for name, path in named_models(recipe.evaluate.models).items():
        revision = recipe.model.revision if path == recipe.model.path else None
        models[name] = resolve_model(
            recipe.model.model_copy(update={"path": path, "revision": revision}), "evaluate.models"
        )
    if not models:
        models = {"base": model} | ({"trained": str(folder.model)} if is_filled(folder.model, MODEL_LAST) else {})
    result = run_evaluate(recipe, folder, models, console)
    write_evaluation_page(folder.path)
    folder.finish("evaluate", result)
    if recipe.evaluate.suites or recipe.evaluate.models:
        console.rich.print((folder.path / "evaluation.md").read_text(encoding="utf-8"), markup=False)
        console.say(
            f"evaluate: {result['problems']} problems, {span(result['seconds'])}; {_shown(folder.path)}/evaluation.html"
            " to browse the answers, .md, .csv and .json beside it"
        )
    else:
        scores = ", ".join(f"{name} {result[name]['accuracy']:.1%}" for name in models)
        console.say(f"evaluate: {result['problems']} held-out problems, {scores}, {span(result['seconds'])}")


_STAGE_FUNCTIONS = {"rewrite": _rewrite, "train": _train, "evaluate": _evaluate}


def _report(folder: RunFolder, console: Console) -> None:
    from offsft.report import summary_table, write_report, write_summary

    if not any(folder.result(stage) for stage in STAGES if stage != "report"):
        raise RunFolderError(
            f"{folder.path} holds no finished stage to report on; run jobs.pipeline or jobs.rewrite first"
        )
    console.progress("report: drawing")
    summary = write_summary(folder.path)
    write_report(folder.path)
    console.done()
    console.rich.print(summary_table(summary))
    console.say(f"report: {_shown(folder.path / 'report.html')}")


def _shown(path: StoragePath) -> str:
    """A path as the user would type it."""
    if isinstance(path, Path) and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(path)
