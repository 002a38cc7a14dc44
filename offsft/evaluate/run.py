"""Evaluates one or more models on suites or held-out problems, with the engines and verifiers of the rewriting."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from offsft.config import EvaluateConfig, Recipe
from offsft.data.intake import Room, problem_source, quarantine_note, take_in, write_generated
from offsft.data.intake_record import IntakeRecord, stamp_files, write_record
from offsft.data.suite_intake import SuiteIntake, name_held_out, problem_suites
from offsft.data.suites import HELD_OUT, find_suites
from offsft.errors import ConfigError, RunFolderError
from offsft.evaluate.actor import Asking, Draw, Drift, EvaluationActor
from offsft.evaluate.drift import kl_divergence, read_samples
from offsft.evaluate.statistics import ScoreEstimate, mean_and_stderr
from offsft.evaluate.table import evaluation_table, read_verdicts, write_table
from offsft.inference.batch_job import EngineJob, count_rows
from offsft.inference.spec import SamplerFactory, engine_spec
from offsft.prompts import load_prompts
from offsft.protocols import SamplingParams
from offsft.records import Outcome
from offsft.runtime import metrics
from offsft.runtime.console import Console
from offsft.runtime.placement import Need
from offsft.runtime.waiting import show_elapsed
from offsft.storage.paths import StoragePath, is_filled, is_folder, make, write_json
from offsft.storage.run_folder import RunFolder

_SHARD_ROWS = 16


def run_evaluate(
    recipe: Recipe,
    folder: RunFolder,
    models: Mapping[str, str],
    console: Console,
    *,
    sampler_factory: SamplerFactory | None = None,
    reference: StoragePath | None = None,
) -> dict[str, Any]:
    """Answer the problems with each model (name -> folder), and return the content of `evaluate.json`.

    `reference` is the folder of the answers from which the others' KL divergence is measured (see
    `offsft.evaluate.drift`); None: the first model's, where there are several or a sample for it costs nothing.

    Accuracy is the mean over problems and samples, its standard error that of the problems' means. The difference of
    two models is paired by problem, so that problems hard for both do not count as noise. The same figures for each
    suite, with pass@k and more, go to `evaluation.json`, `.md` and `.csv` (see `offsft.evaluate.table`).

    Raises:
        DataError: the problems are missing, or no row is valid.
        RunFolderError: the folder holds answers of another model of the same name, or to other problems.
        EngineError: no engine could start.
        ConfigError: several models are to be evaluated with a remote engine, which holds one.
    """
    started_s = time.monotonic()
    if recipe.engine.kind == "remote" and len(models) > 1:
        raise ConfigError(
            f"engine.kind=remote samples from one model, and {len(models)} are to be evaluated ({', '.join(models)}); set"
            " engine.kind=vllm, or name the one model in evaluate.models"
        )
    if reference is None and (len(models) > 1 or _sampling(recipe).undistorted):
        reference = folder.evaluation / next(iter(models))
    with show_elapsed(console, "evaluate: reading the problems", Need.of_intake()):
        left_out = _take_in_all(recipe, folder, models, console)
    asked = _Asked(recipe, folder, console, sampler_factory, reference)
    results = {name: asked.answers(name, model) for name, model in models.items()}
    drift = {name: kl for name in models if (kl := _kl(folder.evaluation / name, reference)) is not None}
    retention = retention_suites(recipe.evaluate)
    table = evaluation_table(results, left_out, drift=drift, retention=retention)
    write_table(table, folder.path)
    learnt = {name: _without(answers, retention) for name, answers in results.items()}
    scores = {name: _scores(answers) for name, answers in learnt.items()}
    result: dict[str, Any] = {
        "problems": max(map(len, learnt.values())),
        "suites": list(left_out),
        "models": list(models),
        "samples": recipe.evaluate.samples,
        "temperature": recipe.evaluate.temperature,
        "kl": {name: asdict(kl) for name, kl in drift.items()},
        "retention": [each for each in table["differences"] if each["suite"] in retention],
        **{name: each for name, each in scores.items() if name in ("base", "trained")},
        "seconds": time.monotonic() - started_s,
    }
    for name, each in scores.items():
        metrics.EVALUATION_ACCURACY.set(each["accuracy"], run=folder.path.name, model=name)
    if {"base", "trained"} <= results.keys():
        base, trained = (_means(learnt[name]) for name in ("base", "trained"))
        both = base.keys() & trained.keys()  # a problem on which engines died repeatedly has no answer
        mean, stderr = mean_and_stderr([trained[key] - base[key] for key in sorted(both)])
        result["difference"] = {"mean": mean, "stderr": stderr}
    return result


def _take_in_all(recipe: Recipe, folder: RunFolder, models: Mapping[str, str], console: Console) -> dict[str, int]:
    """Take the problems into the folder, once; returns the number per suite that do not fit in the context."""
    if recipe.evaluate.models:
        _hold_models(folder.evaluation, models)
    problems, settings = folder.evaluation / "problems", recipe.evaluate
    left_out: dict[str, int] = {}
    if not settings.suites:
        if not is_filled(problems) and not (folder.evaluation / "suites").exists():
            _take_in(recipe, folder, problems, next(iter(models.values())), console)
        if not settings.retention:
            return {HELD_OUT: 0}
        left_out[HELD_OUT] = 0
        name_held_out(problems)
    thinking = recipe.model.thinking
    prompts = [load_prompts(model, _revision(recipe, model), recipe.prompt, thinking) for model in models.values()]
    intake = SuiteIntake(folder.evaluation, recipe.evaluate, recipe.model.context_tokens, prompts, _SHARD_ROWS)
    left_out |= intake.take_in(find_suites([*settings.suites, *settings.retention]))
    note = ", ".join(
        f"{number} of {name} too long for model.context_tokens" for name, number in left_out.items() if number
    )
    console.say(
        f"evaluate: {count_rows(problems)} problems of {', '.join(left_out)}" + (f"; left out: {note}" if note else "")
    )
    return left_out


def retention_suites(settings: EvaluateConfig) -> list[str]:
    """Names of the suites that are reported apart, as what the training cost elsewhere."""
    return [suite.name for suite in find_suites(settings.retention, "evaluate.retention")]


def _drift_problems(recipe: Recipe, problems: StoragePath) -> frozenset[str]:
    """The first problems of each suite, `evaluate.drift_problems` in all, without those of `evaluate.retention`."""
    settings = recipe.evaluate
    suites = [suite.name for suite in find_suites(settings.suites)] or [HELD_OUT]
    left = dict.fromkeys(suites, ceil(settings.drift_problems / len(suites)))
    found: list[str] = []
    for name, suite in problem_suites(problems):
        if left.get(suite, 0):
            left[suite] -= 1
            found.append(name)
    return frozenset(found)


def _kl(answers: StoragePath, reference: StoragePath | None) -> ScoreEstimate | None:
    """KL divergence from the model that gave the reference's answers to the one that gave these."""
    if reference is None or answers == reference:
        return None
    return kl_divergence(read_samples(reference), read_samples(answers))


def _hold_models(evaluation: StoragePath, models: Mapping[str, str]) -> None:
    """Record which model each name stands for: answers of two models must not mix under one name."""
    path = evaluation / "models.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, model in models.items():
        if held.get(name, model) != model:
            raise RunFolderError(
                f"evaluate.models: {name} stands for {model}, but in {evaluation.parent.name}/ for {held[name]}; give it"
                " another name (name=path), or this experiment a folder of its own (run=...)"
            )
    make(evaluation)
    write_json(path, {**held, **models})


def _take_in(recipe: Recipe, folder: RunFolder, problems: StoragePath, model: str, console: Console) -> None:
    settings = recipe.evaluate
    generated = folder.path / "generated_held_out.jsonl"
    if settings.path == "generated":
        write_generated(generated, settings.generated_problems, "held_out", recipe)
    source = problem_source(settings, "evaluate.path", generated, recipe.domain)
    described = recipe.model
    prompts = load_prompts(model, _revision(recipe, model), recipe.prompt, described.thinking)
    room = Room(prompts, described.context_tokens, settings.max_tokens)
    quarantine = folder.evaluation / "quarantine"
    write_record(folder.path, "evaluate", IntakeRecord(stamp_files(settings, "evaluate.path")))
    reasons = take_in(source, room, problems=problems, quarantine=quarantine, shard_rows=_SHARD_ROWS)
    console.say(f"evaluate: {count_rows(problems)} held-out problems" + quarantine_note(reasons))


def _revision(recipe: Recipe, model: str) -> str | None:
    """`model.revision` for `model.path`, None for any other model."""
    return recipe.model.revision if model == recipe.model.path and not is_folder(model) else None


def _asking(recipe: Recipe) -> dict[str, Asking]:
    """How the problems are asked and judged, by suite."""
    settings = recipe.evaluate
    asked = {} if settings.suites else {HELD_OUT: Asking(settings.style or "plain", recipe.verify)}
    return asked | {
        suite.name: Asking(settings.style or suite.style, suite.verifier(recipe.verify))
        for suite in find_suites([*settings.suites, *settings.retention])
    }


def _sampling(recipe: Recipe) -> SamplingParams:
    return SamplingParams(recipe.evaluate.max_tokens, recipe.evaluate.temperature, recipe.evaluate.top_p)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What all models of an evaluation are asked, and with which engines."""

    recipe: Recipe
    folder: RunFolder
    console: Console
    sampler_factory: SamplerFactory | None
    reference: StoragePath | None

    def answers(self, name: str, model: str) -> pa.Table:
        """Ask one model, resumably; returns the verdicts on its answers."""
        recipe, folder = self.recipe, self.folder
        settings = recipe.evaluate
        job = EngineJob(
            name=f"evaluate: {name}",
            actor=EvaluationActor,
            problems=folder.evaluation / "problems",
            output=folder.evaluation / name,
            committed=folder.evaluation / f"{name}.committed",
            quarantine=folder.evaluation / f"{name}.quarantine",
            batch_rows=_SHARD_ROWS,
            engine=recipe.engine,
        )
        described = recipe.model.model_copy(update={"path": model, "revision": _revision(recipe, model)})
        drift = self._drift(job.output)
        job.run(
            lambda coordinator: (
                engine_spec(
                    recipe.model_copy(update={"model": described}),
                    model=model,
                    policy=name,
                    raw_distribution=True,
                    logs=folder.logs,
                    quarantine=job.quarantine,
                    coordinator=coordinator,
                    sampler_factory=self.sampler_factory,
                ),
                Draw(_sampling(recipe), settings.samples, settings.greedy),
                _asking(recipe),
                drift,
            ),
            self.console,
        )
        return read_verdicts(job.output)

    def _drift(self, output: StoragePath) -> Drift:
        if self.reference is None or not self.recipe.evaluate.drift_problems:
            return Drift()
        problems = _drift_problems(self.recipe, self.folder.evaluation / "problems")
        return Drift(problems, None if output == self.reference else read_samples(self.reference))


def _without(table: pa.Table, suites: Sequence[str]) -> pa.Table:
    return table.filter(~pc.field("suite").isin(pa.array(suites, pa.string())))


def _means(table: pa.Table) -> dict[str, float]:
    """Share of correct samples per problem, by id."""
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
