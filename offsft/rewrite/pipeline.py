"""The rewriting stage, from problem files to `rewrites/`: intake, cascade, counts."""

import time
from collections import Counter
from typing import Any

import numpy as np

from offsft.cascade import cascade_settings
from offsft.config import Domain, Fields, ProblemRows, Recipe
from offsft.console import Console
from offsft.contamination import Overlap
from offsft.demo.problems import Split
from offsft.engine_actor import SamplerFactory, engine_spec
from offsft.engine_job import EngineJob, count_rows
from offsft.errors import ConfigError
from offsft.evaluate.contamination import suite_overlap
from offsft.gap import gap_of_rewrites
from offsft.quarantine import reasons
from offsft.records import Source
from offsft.rewrite.intake import Room, take_in
from offsft.rewrite.intake import Source as ProblemSource
from offsft.rewrite.stage import Rewrite
from offsft.run_folder import RunFolder
from offsft.storage import StoragePath, dataset, is_filled

_BATCH_ROWS = 1024


def run_rewrite(
    recipe: Recipe,
    folder: RunFolder,
    model: str,
    console: Console,
    *,
    sampler_factory: SamplerFactory | None = None,
) -> dict[str, Any]:
    """Rewrite the recipe's problems with the policy in `model`; what is already done is kept.

    Returns what `rewrite.json` holds: problems by source, quarantined rows by reason, tokens and seconds.

    Raises:
        DataError: the problems are missing or not one row is valid.
        EngineError: no engine could start.
    """
    started_s = time.monotonic()
    if not is_filled(folder.problems):
        _take_in(recipe, folder, model, console)
    settings = cascade_settings(recipe.rewrite, recipe.model.context_tokens)
    job = EngineJob(
        name=f"rewrite: {folder.path.name}",
        actor=Rewrite,
        problems=folder.problems,
        output=folder.rewrites,
        committed=folder.rewrites_done,
        quarantine=folder.quarantine,
        batch_rows=recipe.rewrite.commit_problems,
        engine=recipe.engine,
    )
    worked = job.run(
        lambda foreman: (
            engine_spec(
                recipe,
                model=model,
                policy=policy_name(recipe),
                raw_distribution=settings.on_policy,
                logs=folder.logs,
                quarantine=job.quarantine,
                foreman=foreman,
                sampler_factory=sampler_factory,
            ),
            settings,
        ),
        console,
    )
    return _summary(folder) | {
        "tokens_per_s": worked["sampled_tokens"] / worked["seconds"] if worked["seconds"] else 0.0,
        "seconds": time.monotonic() - started_s,
    }


def policy_name(recipe: Recipe) -> str:
    """How rows name the policy: model and revision."""
    return f"{recipe.model.path}@{recipe.model.revision}" if recipe.model.revision else recipe.model.path


def problem_source(
    settings: ProblemRows, setting: str, generated: StoragePath, domain: Domain, excluded: Overlap | None = None
) -> ProblemSource:
    """Where the rows are: the recipe's paths, or the file of generated problems."""
    if settings.path == "generated":
        fields = Fields(tests="tests") if domain == "code" else settings.fields
        return ProblemSource(setting, [str(generated)], "own", fields, settings.limit, domain, excluded)
    return ProblemSource(setting, settings.paths, settings.format, settings.fields, settings.limit, domain, excluded)


def write_generated(path: StoragePath, n: int, split: Split, recipe: Recipe) -> None:
    """The recipe's domain's generated problems; there are some for mathematics and for code."""
    from offsft.demo.code_problems import generate_code
    from offsft.demo.problems import generate, write_jsonl

    if recipe.domain not in ("math", "code"):
        raise ConfigError(f"domain={recipe.domain} has no generated problems; set data.path and evaluate.path to files")
    make = generate_code if recipe.domain == "code" else generate
    write_jsonl(path, make(n, split=split, seed=recipe.data.generated_seed))


def _take_in(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> None:
    console.progress("intake: reading the problems")
    generated = folder.path / "generated.jsonl"
    if recipe.data.path == "generated":
        write_generated(generated, recipe.data.generated_problems, "train", recipe)
    refused = take_in(
        problem_source(
            recipe.data, "data.path", generated, recipe.domain, suite_overlap(recipe.data, recipe.evaluate.suite_folder)
        ),
        Room(model, recipe.model.revision, recipe.prompt, recipe.model.context_tokens, recipe.rewrite.max_tokens),
        problems=folder.problems,
        quarantine=folder.quarantine,
        shard_rows=recipe.rewrite.commit_problems,
    )
    console.say(f"intake: {count_rows(folder.problems)} problems" + quarantine_note(refused))


def quarantine_note(refused: Counter[str]) -> str:
    """`, 3 rows quarantined (2 duplicate, 1 bad_json)`, or nothing."""
    if not refused:
        return ""
    return f", {refused.total()} rows quarantined ({', '.join(f'{n} {reason}' for reason, n in refused.most_common())})"


def _summary(folder: RunFolder) -> dict[str, Any]:
    rewrites = dataset(folder.rewrites)
    columns = ["source", "generated_tokens", "policy_logprobs", "expert_mean_logprob"]
    sources: Counter[str] = Counter()
    problems = tokens = 0
    kept = expert = 0.0
    # Batch by batch: all rows' log-probs at once would not fit into the driver.
    for batch in rewrites.to_batches(columns=columns, batch_size=_BATCH_ROWS, fragment_readahead=1, batch_readahead=1):
        problems += batch.num_rows
        sources.update(batch["source"].to_pylist())
        tokens += sum(batch["generated_tokens"].to_pylist())
        expert += sum(batch["expert_mean_logprob"].to_pylist())
        kept += sum(
            float(each.mean(dtype=np.float64)) for each in batch["policy_logprobs"].to_numpy(zero_copy_only=False)
        )
    refused = reasons(folder.quarantine)
    return {
        "problems": problems,
        **{str(source): sources[str(source)] for source in Source},
        "quarantined": refused.total(),
        "quarantine_reasons": dict(refused),
        "generated_tokens": tokens,
        "expert_mean_logprob": expert / problems,
        "kept_mean_logprob": kept / problems,
        "gap": gap_of_rewrites(folder.rewrites, folder.gap / "before"),
    }
