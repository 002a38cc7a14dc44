"""The rows that a probe trains on and those that it measures, chosen once for all objectives."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from offsft.config import ProbeConfig, Recipe, TrainConfig
from offsft.config.loading import flatten
from offsft.config.recipe import stages_changed_by
from offsft.data.tables import REWRITE_SCHEMA
from offsft.errors import RunFolderError
from offsft.models import fingerprint
from offsft.prompts import load_prompts
from offsft.records import EXPERT, UNSOLVED, Problem
from offsft.storage.paths import StoragePath, dataset, make, parquet_files, read_table, write_json, write_table
from offsft.storage.run_folder import RunFolder
from offsft.train.loading import hash_of

LEAST_ROWS = 6
"""Fewest rows that can be probed: a third of them, two, are held out."""
_COLUMNS = ("id", "source", "prompt_ids", "response_ids", "behavior_logprobs", "expert_ids")
_SCHEMA = pa.schema([REWRITE_SCHEMA.field(name) for name in _COLUMNS])
_SECTIONS = ("seed", "model", "prompt", "train")
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Split:
    """How many rows are held out and trained on, and how often these are passed over."""

    held_out: int
    trained: int
    epochs: int
    steps: int
    """Optimizer steps in all."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A probe's rows, written as the rewrites of its trainings."""

    folder: StoragePath
    """The probe's folder: `rewrites/`, and a run folder for each objective."""
    rewrites: StoragePath
    split: Split
    sources: dict[str, int]
    """Rows by source, held-out ones included."""


def trial_settings(split: Split) -> dict[str, Any]:
    """The settings of `train` that a probe's trainings have in place of the recipe's.

    The learning rate does not fall: these steps stand for the beginning of a longer training.
    """
    return {
        "epochs": split.epochs,
        "schedule": "constant",
        "held_out_rows": split.held_out,
        "held_out_every": -(-split.steps // 4),
        "gap_rows": split.held_out,
        "gap_from": "held_out",
        "checkpoint_steps": split.steps,
        "tensorboard": False,
        "wandb": None,
    }


def split_rows(rows: int, settings: ProbeConfig, global_batch: int) -> Split:
    """Split the rows: the held-out ones first, then whole batches for at least `probe.steps` steps.

    Where the rows are too few for one pass, all passes have the same number of steps, so that every step but those of a
    sample smaller than a batch has a whole batch.
    """
    held_out = min(settings.held_out_rows, rows // 3)
    left = min(rows - held_out, settings.train_rows)
    epochs = math.ceil(settings.steps / max(1, left // global_batch))
    per_epoch = math.ceil(settings.steps / epochs)
    return Split(held_out, min(left, per_epoch * global_batch), epochs, epochs * per_epoch)


def open_sample(recipe: Recipe, folder: RunFolder, model: str) -> Sample:
    """Choose the rows and write them, unless that is done; `recipe.train.responses` are those to train on.

    Rows come from the run's rewrites, or, if it has none, from its problems with the expert's solutions. They are those
    whose ids have the smallest hashes. The folder's name is a digest of the rows, the model and all settings that
    change the trainings' results, so that figures of different probes are never mixed.

    Raises:
        RunFolderError: there are too few rows.
    """
    settings = recipe.probe
    most = settings.train_rows + settings.held_out_rows
    if folder.has_rewrites():
        rows = _of_rewrites(folder.rewrites, recipe.train, most)
    else:
        rows = _of_problems(recipe, folder, model, most)
    if len(rows) < LEAST_ROWS:
        raise RunFolderError(
            f"{folder.path} has {len(rows)} rows that can be probed, and {LEAST_ROWS} are needed: with a response to train"
            f" on, no longer than train.max_tokens={recipe.train.max_tokens}, and of a source whose train.source_weights is"
            " not 0; change one of these settings, or give it more problems"
        )
    split = split_rows(len(rows), settings, recipe.train.global_batch)
    rows = rows[: split.held_out + split.trained]
    root = folder.path / "probe" / _digest(recipe, model, split, rows)
    sources = dict(Counter(row["source"] for row in rows))
    if not (root / "rewrite.json").exists():
        make(root / "rewrites")
        write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), root / "rewrites" / "rows.parquet")
        # Last: it says that the rows are complete, as in a run's folder.
        write_json(root / "rewrite.json", {"problems": len(rows), "sources": sources})
    return Sample(root, root / "rewrites", split, sources)


def _of_rewrites(rewrites: StoragePath, training: TrainConfig, most: int) -> list[dict[str, Any]]:
    chosen = sorted(usable_ids(rewrites, training), key=hash_of)[:most]
    table = dataset(rewrites).to_table(
        columns=list(_COLUMNS), filter=pc.field("id").isin(pa.array(chosen, pa.string()))
    )
    return sorted(table.to_pylist(), key=lambda row: hash_of(row["id"]))


def usable_ids(rewrites: StoragePath, training: TrainConfig) -> Iterator[str]:
    """Ids of the rows that a training takes whole: with a response, no longer than allowed, of a source that counts."""
    kept = training.responses == "kept"
    response = "response_ids" if kept else "expert_ids"
    columns = ["id", "source", "prompt_ids", response]
    batches = dataset(rewrites).to_batches(
        columns=columns, batch_size=_BATCH_ROWS, fragment_readahead=1, batch_readahead=1
    )
    for batch in batches:
        ids, sources = batch["id"].to_pylist(), batch["source"].to_pylist()
        prompts, responses = (batch[name].value_lengths().to_pylist() for name in ("prompt_ids", response))
        for key, source, prompt, tokens in zip(ids, sources, prompts, responses, strict=True):
            if _is_usable(source if kept else EXPERT, prompt, tokens, training):
                yield key


def _is_usable(source: str, prompt_tokens: int, response_tokens: int, training: TrainConfig) -> bool:
    return (
        source != UNSOLVED
        and training.source_weights.get(source, 1.0) > 0
        and response_tokens > 0
        and prompt_tokens + response_tokens <= training.max_tokens
    )


def _of_problems(recipe: Recipe, folder: RunFolder, model: str, most: int) -> list[dict[str, Any]]:
    """Rows with the expert's solution in both places, as rewriting leaves them where nothing was sampled."""
    prompts = load_prompts(model, recipe.model.revision, recipe.prompt, recipe.model.thinking)
    problems = [
        Problem.from_row(row) for path in parquet_files(folder.problems) for row in read_table(path).to_pylist()
    ]
    rows: list[dict[str, Any]] = []
    for problem in sorted(problems, key=lambda problem: hash_of(problem.id)):
        if len(rows) == most:
            break
        prompt, solution = prompts.plain(problem), prompts.response(problem.solution)
        if _is_usable(EXPERT, len(prompt), len(solution), recipe.train):
            ids = {"prompt_ids": prompt, "response_ids": solution, "expert_ids": solution}
            rows.append({"id": problem.id, "source": EXPERT, "behavior_logprobs": None, **ids})
    return rows


def _digest(recipe: Recipe, model: str, split: Split, rows: list[dict[str, Any]]) -> str:
    training = recipe.train.model_copy(update=trial_settings(split))
    recipe = recipe.model_copy(update={"train": training})
    settings = {
        key: value
        for key, value in flatten(recipe.model_dump(mode="json")).items()
        if key.split(".")[0] in _SECTIONS and not key.startswith("train.objective") and stages_changed_by(key)
    }
    identity = [fingerprint(model, recipe.model.revision), settings, rows]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
