"""The rewriting stage, from problem files to `rewrites/`: intake, cascade, counts."""

import time
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from offsft.config import Recipe
from offsft.data.contamination import suite_overlap
from offsft.data.intake import (
    ProblemSource,
    Room,
    add_new,
    problem_source,
    quarantine_note,
    take_in,
    write_generated,
)
from offsft.data.intake_record import IntakeRecord, changed_files, read_record, stamp_files, write_record
from offsft.data.quarantine import reasons
from offsft.errors import ConfigError, DataError
from offsft.gap import gap_of_rewrites
from offsft.inference.batch_job import EngineJob, count_rows
from offsft.inference.spec import SamplerFactory, engine_spec
from offsft.measures.sums import Mean, MeasureSums
from offsft.models import fingerprint, policy_name, scored_tokens
from offsft.prompts import load_prompts
from offsft.records import UNSOLVED
from offsft.rewrite.actor import RewriteActor
from offsft.rewrite.cascade import cascade_settings
from offsft.rewrite.stages import check_stages
from offsft.runtime.console import Console
from offsft.runtime.placement import Need
from offsft.runtime.waiting import show_elapsed
from offsft.storage.paths import StoragePath, dataset, is_filled
from offsft.storage.run_folder import RunFolder
from offsft.verify.chain import SecondOpinions

_BATCH_ROWS = 1024


def run_rewrite(
    recipe: Recipe,
    folder: RunFolder,
    model: str,
    console: Console,
    *,
    sampler_factory: SamplerFactory | None = None,
) -> dict[str, Any]:
    """Rewrite the recipe's problems with the policy in `model`; finished rewrites are kept.

    Returns the contents of `rewrite.json`: problems by source, quarantined rows by reason, tokens and seconds.

    Raises:
        ConfigError: a stage's class cannot be imported, or does not know an option.
        DataError: the problems are missing or no row is valid.
        EngineError: no engine could start.
    """
    started_s = time.monotonic()
    check_stages(recipe.rewrite.stages)
    row_tokens = take_in_problems(recipe, folder, model, console)
    settings = cascade_settings(recipe.rewrite, row_tokens)
    job = EngineJob(
        name=f"rewrite: {folder.path.name}",
        actor=RewriteActor,
        problems=folder.problems,
        output=folder.rewrites,
        committed=folder.rewrites_done,
        quarantine=folder.quarantine,
        batch_rows=recipe.rewrite.commit_problems,
        engine=recipe.engine,
    )
    worked = job.run(
        lambda coordinator: (
            engine_spec(
                recipe,
                model=model,
                policy=policy_name(recipe),
                raw_distribution=settings.sampling.undistorted,
                logs=folder.logs,
                quarantine=job.quarantine,
                coordinator=coordinator,
                sampler_factory=sampler_factory,
            ),
            settings,
            str(folder.rewrites),
        ),
        console,
    )
    if worked["usage"]:
        console.say(
            "rewrite: {requests} requests, {prompt_tokens} prompt and {completion_tokens} sampled tokens, cost {cost:.4g}".format(
                **worked["usage"]
            )
        )
    return count_rewrites(recipe, folder) | {
        "usage": worked["usage"],
        "tokens_per_s": worked["sampled_tokens"] / worked["seconds"] if worked["seconds"] else 0.0,
        "seconds": time.monotonic() - started_s,
    }


def take_in_problems(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> int:
    """Write `problems/`, or add to it what is new in the data; returns the maximum length of a row in tokens.

    Raises:
        DataError: the problems are missing or no row is valid.
    """
    row_tokens = _row_tokens(recipe, model, console)
    intake = _add_new if is_filled(folder.problems) else _take_in
    with show_elapsed(console, "intake: reading the problems", Need.of_intake()):
        intake(recipe, folder, model, row_tokens, console)
    return row_tokens


def _row_tokens(recipe: Recipe, model: str, console: Console) -> int:
    """Maximum row length in tokens: the recipe's limit, or one less if the model has no position beyond it."""
    limit = scored_tokens(model, recipe.model.revision, recipe.model.context_tokens)
    if limit < recipe.model.context_tokens:
        console.say(
            f"rewrite: rows have up to {limit} tokens: the model has {recipe.model.context_tokens} positions, and scoring a"
            " row takes one after it"
        )
    return limit


def _take_in(recipe: Recipe, folder: RunFolder, model: str, row_tokens: int, console: Console) -> None:
    console.progress("intake: reading the problems")
    if recipe.data.path == "generated":
        write_generated(_generated(folder), recipe.data.generated_problems, "train", recipe)
    # Before the rows are read, so that the next start finds a change made meanwhile, and before they are written, so
    # that problems never exist without a record.
    files = stamp_files(recipe.data, "data.path")
    write_record(folder.path, "data", IntakeRecord(files, fingerprint(model, recipe.model.revision)))
    refused = take_in(*_intake(recipe, folder, model, row_tokens), **_places(recipe, folder))
    console.say(f"intake: {count_rows(folder.problems)} problems" + quarantine_note(refused))


def _add_new(recipe: Recipe, folder: RunFolder, model: str, row_tokens: int, console: Console) -> None:
    """Add problems that are new in the data files, if the recipe allows it and the files have changed."""
    record = read_record(folder.path, "data")
    if record is None or recipe.data.on_change != "add":
        return
    try:
        files = stamp_files(recipe.data, "data.path", record)
    except (ConfigError, DataError):  # they are gone, as the start of the run has reported
        return
    if changed_files(record, files):
        added, refused = add_new(*_intake(recipe, folder, model, row_tokens), **_places(recipe, folder))
        # After the rows: an interrupted call is repeated, and adds no row twice.
        write_record(folder.path, "data", replace(record, files=files))
        console.say(f"intake: {added} problems added, {count_rows(folder.problems)} in all" + quarantine_note(refused))


def _intake(recipe: Recipe, folder: RunFolder, model: str, row_tokens: int) -> tuple[ProblemSource, Room]:
    described = recipe.model
    excluded = suite_overlap(recipe.data, recipe.evaluate.suite_folder)
    source = problem_source(recipe.data, "data.path", _generated(folder), recipe.domain, excluded)
    prompts = load_prompts(model, described.revision, recipe.prompt, described.thinking)
    return source, Room(prompts, row_tokens, recipe.rewrite.max_tokens)


def _places(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    return {
        "problems": folder.problems,
        "quarantine": folder.quarantine,
        "shard_rows": recipe.rewrite.commit_problems,
    }


def _generated(folder: RunFolder) -> StoragePath:
    return folder.path / "generated.jsonl"


def count_rewrites(recipe: Recipe, folder: RunFolder) -> dict[str, Any]:
    """The counts of `rewrite.json`; `sources` counts problems per stage in the recipe's order, then the unsolved."""
    rewrites = dataset(folder.rewrites)
    columns = ["source", "generated_tokens", "policy_logprobs", "expert_mean_logprob", "response_ids", "attempts"]
    # A folder that an earlier version began has rows without measures.
    columns += [name for name in ("measures",) if name in rewrites.schema.names]
    names = [*recipe.rewrite.sources, *([UNSOLVED] if recipe.rewrite.expert == "none" else [])]
    sources: Counter[str] = Counter()
    problems = tokens = 0
    kept, expert, second = Mean(), Mean(), SecondOpinions()
    is_chain = len(recipe.verify.kinds) > 1
    measures: dict[str, MeasureSums] = {name: MeasureSums() for name in names}
    outcomes: dict[str, Counter[str]] = {}
    # Batch by batch: all rows' log-probs at once would not fit into the driver.
    for batch in rewrites.to_batches(columns=columns, batch_size=_BATCH_ROWS, fragment_readahead=1, batch_readahead=1):
        problems += batch.num_rows
        sources.update(batch["source"].to_pylist())
        tokens += sum(batch["generated_tokens"].to_pylist())
        expert.add(batch["expert_mean_logprob"].drop_null().to_pylist())
        scored = batch["policy_logprobs"].drop_null().to_numpy(zero_copy_only=False)
        kept.add([float(each.mean(dtype=np.float64)) for each in scored if len(each)])
        _add_measures(measures, batch)
        attempts = batch["attempts"].flatten()
        pairs = zip(attempts.field("stage").to_pylist(), attempts.field("outcome").to_pylist(), strict=True)
        for (stage, outcome), n in Counter(pairs).items():
            outcomes.setdefault(stage, Counter())[outcome] += n
        for opinions in attempts.field("opinions").to_pylist() if is_chain else ():
            second.add(opinions)
    refused = reasons(folder.quarantine)
    return {
        "problems": problems,
        "sources": {name: sources[name] for name in names},
        "quarantined": refused.total(),
        "quarantine_reasons": dict(refused),
        "generated_tokens": tokens,
        "expert_mean_logprob": expert.value,
        "kept_mean_logprob": kept.value,
        "attempts": {stage: dict(counts) for stage, counts in outcomes.items()},
        "measures": {name: sums.statistics() for name, sums in measures.items() if sums.rows},
        **({"second_opinions": {"verifiers": list(recipe.verify.kinds), **asdict(second)}} if is_chain else {}),
        # An engine that cannot score gives no gap.
        **(
            {}
            if expert.value is None
            else {"gap": gap_of_rewrites(folder.rewrites, folder.gap / "before", recipe.rewrite.sources)}
        ),
    }


def _add_measures(sums: dict[str, MeasureSums], batch: pa.RecordBatch) -> None:
    """Add a batch's kept responses to the sums of their sources."""
    if "measures" not in batch.schema.names:
        return
    ids = batch["response_ids"].to_numpy(zero_copy_only=False)
    for source, measures, response in zip(batch["source"].to_pylist(), batch["measures"].to_pylist(), ids, strict=True):
        if measures is not None:
            sums.setdefault(source, MeasureSums()).add(measures, response.tolist())
