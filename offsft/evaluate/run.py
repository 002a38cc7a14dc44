"""Evaluation of one or more models on suites or held-out problems, with the engines and verifiers of the rewriting."""

import json
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from offsft import metrics
from offsft.config import Recipe, Verify
from offsft.console import Console
from offsft.engine_actor import SamplerFactory, engine_spec
from offsft.engine_job import EngineJob, count_rows
from offsft.errors import RunFolderError
from offsft.evaluate.answer import Answer, Asking, Draw
from offsft.evaluate.metrics import mean_and_stderr
from offsft.evaluate.problems import SuiteIntake
from offsft.evaluate.suites import HELD_OUT, find_suites
from offsft.evaluate.table import evaluation_table, read_verdicts, write_table
from offsft.prompts import load_prompts
from offsft.protocols import SamplingParams
from offsft.records import Outcome
from offsft.rewrite.intake import Room, take_in
from offsft.rewrite.pipeline import problem_source, quarantine_note, write_generated
from offsft.run_folder import RunFolder, write_text_atomically
from offsft.storage import StoragePath, is_filled, is_folder, make

_SHARD_ROWS = 16


def run_evaluate(
    recipe: Recipe,
    folder: RunFolder,
    models: Mapping[str, str],
    console: Console,
    *,
    sampler_factory: SamplerFactory | None = None,
) -> dict[str, Any]:
    """Answer the problems with each model (name -> folder), and return what `evaluate.json` holds.

    Accuracy is the mean over problems and samples, its standard error that of the problems' means; the difference of
    two models is taken problem by problem, so that what both find hard does not count as noise. The same for each suite,
    with pass@k and more, is left in `evaluation.json`, `.md` and `.csv` (see `offsft.evaluate.table`).

    Raises:
        DataError: the problems are missing or not one row is valid.
        RunFolderError: the folder holds answers of another model of the same name, or to other problems.
        EngineError: no engine could start.
    """
    started_s = time.monotonic()
    left_out = _take_in_all(recipe, folder, models, console)
    results = {name: _answers(recipe, folder, name, model, console, sampler_factory) for name, model in models.items()}
    table = evaluation_table(results, left_out)
    write_table(table, folder.path)
    scores = {name: _scores(answers) for name, answers in results.items()}
    result: dict[str, Any] = {
        "problems": count_rows(folder.evaluation / "problems"),
        "suites": list(left_out),
        "models": list(models),
        "samples": recipe.evaluate.samples,
        "temperature": recipe.evaluate.temperature,
        **{name: each for name, each in scores.items() if name in ("base", "trained")},
        "seconds": time.monotonic() - started_s,
    }
    for name, each in scores.items():
        metrics.EVALUATION_ACCURACY.set(each["accuracy"], run=folder.path.name, model=name)
    if {"base", "trained"} <= results.keys():
        base, trained = (_means(results[name]) for name in ("base", "trained"))
        both = base.keys() & trained.keys()  # a problem on which an engine died again and again has no answer
        mean, stderr = mean_and_stderr([trained[key] - base[key] for key in sorted(both)])
        result["difference"] = {"mean": mean, "stderr": stderr}
    return result


def _take_in_all(recipe: Recipe, folder: RunFolder, models: Mapping[str, str], console: Console) -> dict[str, int]:
    """Problems into the folder, unless they are there; returns how many of each suite have no room in the context."""
    if recipe.evaluate.models:
        _hold_models(folder.evaluation, models)
    problems = folder.evaluation / "problems"
    if not recipe.evaluate.suites:
        if not is_filled(problems) and not (folder.evaluation / "suites").exists():
            _take_in(recipe, folder, problems, next(iter(models.values())), console)
        return {HELD_OUT: 0}
    prompts = [load_prompts(model, _revision(recipe, model), recipe.prompt) for model in models.values()]
    intake = SuiteIntake(folder.evaluation, recipe.evaluate, recipe.model.context_tokens, prompts, _SHARD_ROWS)
    left_out = intake.take_in(find_suites(recipe.evaluate.suites))
    note = ", ".join(
        f"{number} of {name} too long for model.context_tokens" for name, number in left_out.items() if number
    )
    console.say(
        f"evaluate: {count_rows(problems)} problems of {', '.join(left_out)}" + (f"; left out: {note}" if note else "")
    )
    return left_out


def _hold_models(evaluation: StoragePath, models: Mapping[str, str]) -> None:
    """Remember which model each name stands for; answers of two models must not meet under one name."""
    path = evaluation / "models.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, model in models.items():
        if held.get(name, model) != model:
            raise RunFolderError(
                f"evaluate.models: {name} stands for {model}, but in {evaluation.parent.name}/ for {held[name]}; give it"
                " another name (name=path), or this experiment a folder of its own (run=...)"
            )
    make(evaluation)
    write_text_atomically(path, json.dumps({**held, **models}, indent=2) + "\n")


def _take_in(recipe: Recipe, folder: RunFolder, problems: StoragePath, model: str, console: Console) -> None:
    settings = recipe.evaluate
    generated = folder.path / "generated_held_out.jsonl"
    if settings.path == "generated":
        write_generated(generated, settings.generated_problems, "held_out", recipe)
    source = problem_source(settings, "evaluate.path", generated, recipe.domain)
    room = Room(model, _revision(recipe, model), recipe.prompt, recipe.model.context_tokens, settings.max_tokens)
    quarantine = folder.evaluation / "quarantine"
    reasons = take_in(source, room, problems=problems, quarantine=quarantine, shard_rows=_SHARD_ROWS)
    console.say(f"evaluate: {count_rows(problems)} held-out problems" + quarantine_note(reasons))


def _revision(recipe: Recipe, model: str) -> str | None:
    """`model.revision` is that of `model.path` alone."""
    return recipe.model.revision if model == recipe.model.path and not is_folder(model) else None


def _asking(recipe: Recipe) -> dict[str, Asking]:
    """How the problems of each suite are asked and judged."""
    settings = recipe.evaluate
    if not settings.suites:
        return {HELD_OUT: Asking(settings.style or "plain", recipe.verify)}
    return {
        suite.name: Asking(
            settings.style or suite.style, Verify.model_validate(recipe.verify.model_dump() | suite.verify)
        )
        for suite in find_suites(settings.suites)
    }


def _answers(
    recipe: Recipe, folder: RunFolder, name: str, model: str, console: Console, sampler_factory: SamplerFactory | None
) -> pa.Table:
    settings = recipe.evaluate
    job = EngineJob(
        name=f"evaluate: {name}",
        actor=Answer,
        problems=folder.evaluation / "problems",
        output=folder.evaluation / name,
        committed=folder.evaluation / f"{name}.committed",
        quarantine=folder.evaluation / f"{name}.quarantine",
        batch_rows=_SHARD_ROWS,
        engine=recipe.engine,
    )
    sampling = SamplingParams(settings.max_tokens, settings.temperature, settings.top_p)
    described = recipe.model.model_copy(update={"path": model, "revision": _revision(recipe, model)})
    job.run(
        lambda foreman: (
            engine_spec(
                recipe.model_copy(update={"model": described}),
                model=model,
                policy=name,
                raw_distribution=True,
                logs=folder.logs,
                quarantine=job.quarantine,
                foreman=foreman,
                sampler_factory=sampler_factory,
            ),
            Draw(sampling, settings.samples, settings.greedy),
            _asking(recipe),
        ),
        console,
    )
    return read_verdicts(job.output)


def accuracy_by_problem(answers: StoragePath) -> dict[str, float]:
    """Share of correct samples of each problem, by id, in a folder of EVALUATION_SCHEMA."""
    return _means(read_verdicts(answers))


def _means(table: pa.Table) -> dict[str, float]:
    """Share of correct samples of each problem, by id."""
    return {
        row["id"]: sum(sample["outcome"] == Outcome.CORRECT for sample in row["samples"]) / len(row["samples"])
        for row in table.select(["id", "samples"]).to_pylist()
    }


def _scores(table: pa.Table) -> dict[str, float]:
    accuracy, stderr = mean_and_stderr(list(_means(table).values()))
    samples = [sample for row in table["samples"].to_pylist() for sample in row]
    return {
        "accuracy": accuracy,
        "stderr": stderr,
        "no_answer_share": sum(sample["outcome"] == Outcome.NO_ANSWER for sample in samples) / len(samples),
        "truncated_share": sum(sample["outcome"] == Outcome.TRUNCATED for sample in samples) / len(samples),
        "mean_tokens": sum(sample["tokens"] for sample in samples) / len(samples),
    }
