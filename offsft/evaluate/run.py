"""Evaluation of one or more models on held-out problems, with the engines and the verifier of the rewriting."""

import asyncio
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from offsft import metrics
from offsft.config import Recipe
from offsft.console import Console
from offsft.engine_actor import Done, EngineActor, EngineSpec, SamplerFactory, engine_spec
from offsft.engine_job import EngineJob, count_rows
from offsft.protocols import SamplingParams
from offsft.records import Completion, Outcome, Problem
from offsft.rewrite.intake import Room, take_in
from offsft.rewrite.pipeline import problem_source, quarantine_note
from offsft.rewrite.tables import EVALUATION_SCHEMA
from offsft.run_folder import RunFolder

_SHARD_ROWS = 16


class Answer(EngineActor):
    """`map_batches` class: batches of PROBLEM_SCHEMA in, batches of EVALUATION_SCHEMA out, row for row."""

    stage = "evaluate"

    def __init__(self, spec: EngineSpec, sampling: SamplingParams, samples: int) -> None:
        super().__init__(spec)
        self._sampling = sampling
        self._samples = samples

    async def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(await self.each(batch, self._row), schema=EVALUATION_SCHEMA)

    async def _row(self, row: dict[str, Any]) -> Done:
        problem = Problem(row["id"], row["problem"], row["solution"], row["answer"])
        completions = await self.sampler.sample(self.prompts.plain(problem), n=self._samples, params=self._sampling)
        samples = await asyncio.gather(*(self._judged(completion, problem) for completion in completions))
        for sample in samples:
            metrics.EVALUATED_SAMPLES.add(run=self.spec.run, model=self.spec.policy, outcome=sample["outcome"])
        correct = sum(sample["outcome"] == Outcome.CORRECT for sample in samples)
        kind = "correct" if correct * 2 > len(samples) else "wrong"
        answered = {"id": problem.id, "problem": problem.problem, "answer": problem.answer, "samples": samples}
        return answered, kind, sum(sample["tokens"] for sample in samples)

    async def _judged(self, completion: Completion, problem: Problem) -> dict[str, Any]:
        sample = {"response": completion.text, "tokens": len(completion.token_ids)}
        if not completion.finished:
            return sample | {"outcome": str(Outcome.TRUNCATED), "extracted": None}
        verdict = await self.verifier(completion.text, problem)
        return sample | {"outcome": str(verdict.outcome), "extracted": verdict.extracted}


def run_evaluate(
    recipe: Recipe,
    folder: RunFolder,
    models: Mapping[str, str],
    console: Console,
    *,
    sampler_factory: SamplerFactory | None = None,
) -> dict[str, Any]:
    """Answer the held-out problems with each model (name -> folder), and return what `evaluate.json` holds.

    Accuracy is the mean over problems and samples, its standard error that of the problems' means; the difference of
    two models is taken problem by problem, so that what both find hard does not count as noise.

    Raises:
        DataError: the held-out problems are missing or not one row is valid.
        EngineError: no engine could start.
    """
    started_s = time.monotonic()
    problems = folder.evaluation / "problems"
    if not problems.exists():
        _take_in(recipe, folder, problems, next(iter(models.values())), console)
    results = {name: _answers(recipe, folder, name, model, console, sampler_factory) for name, model in models.items()}
    result: dict[str, Any] = {
        "problems": count_rows(problems),
        "samples": recipe.evaluate.samples,
        "temperature": recipe.evaluate.temperature,
        **{name: _scores(table) for name, table in results.items()},
        "seconds": time.monotonic() - started_s,
    }
    for name in models:
        metrics.EVALUATION_ACCURACY.set(result[name]["accuracy"], run=folder.path.name, model=name)
    if {"base", "trained"} <= results.keys():
        base, trained = (_means(results[name]) for name in ("base", "trained"))
        both = base.keys() & trained.keys()  # a problem on which an engine died again and again has no answer
        mean, stderr = mean_and_stderr([trained[key] - base[key] for key in sorted(both)])
        result["difference"] = {"mean": mean, "stderr": stderr}
    return result


def mean_and_stderr(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error (sample standard deviation over the root of their number; NaN for one value)."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def _take_in(recipe: Recipe, folder: RunFolder, problems: Path, model: str, console: Console) -> None:
    settings = recipe.evaluate
    generated = folder.path / "generated_held_out.jsonl"
    if settings.path == "generated":
        from offsft.demo.problems import generate, write_jsonl

        write_jsonl(generated, generate(settings.limit, split="held_out", seed=recipe.data.generated_seed))
    source = problem_source(settings, "evaluate.path", generated)
    room = Room(model, recipe.model.revision, recipe.prompt, recipe.model.context_tokens, settings.max_tokens)
    quarantine = folder.evaluation / "quarantine"
    reasons = take_in(source, room, problems=problems, quarantine=quarantine, shard_rows=_SHARD_ROWS)
    console.say(f"evaluate: {count_rows(problems)} held-out problems" + quarantine_note(reasons))


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
    job.run(
        lambda foreman: (
            engine_spec(
                recipe,
                model=model,
                policy=name,
                raw_distribution=True,
                logs=folder.logs,
                quarantine=job.quarantine,
                foreman=foreman,
                sampler_factory=sampler_factory,
            ),
            sampling,
            settings.samples,
        ),
        console,
    )
    return pyarrow.dataset.dataset(job.output, format="parquet").to_table()


def accuracy_by_problem(answers: Path) -> dict[str, float]:
    """Share of correct samples of each problem, by id, in a folder of EVALUATION_SCHEMA."""
    return _means(pyarrow.dataset.dataset(answers, format="parquet").to_table(columns=["id", "samples"]))


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
