"""Export of the trained model as a Hugging Face folder, complete or absent."""

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from offsft.errors import OffsftError, TrainingError
from offsft.models import MODEL_LAST
from offsft.storage.faults import disk_full, storage_fault
from offsft.storage.paths import StoragePath, filling
from offsft.train.generation import FILE, mend_generation, read_generation, unite_ends
from offsft.train.source_files import copy_other_files, share_modes


@dataclass(frozen=True, slots=True)
class Source:
    """The model that was trained: its name in a recipe, the folder of its files, and the token it was taught to end with."""

    name: str
    folder: Path
    end_of_turn: int


def gather_weights(engine: Any, *, zero3: bool, rank: int) -> dict[str, torch.Tensor] | None:
    """The model's weights on rank 0, None elsewhere. Under ZeRO-3 every rank must call it: it is a collective."""
    if zero3:
        weights = engine._zero3_consolidated_16bit_state_dict()
    else:
        weights = engine.module.state_dict() if rank == 0 else None
    if rank != 0 or weights is None:
        return None
    return own_names(weights)


def own_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by the model's own names: the prefix of the wrapper that trained it is not part of them."""
    prefix = "model."
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def export(model: Any, weights: dict[str, torch.Tensor], source: Source, folder: StoragePath) -> list[str]:
    """Write weights (safetensors), configuration, and every other file of the source; the folder appears whole.

    Generation ends with the source's tokens or the one that was taught. Returns a note for each setting that had to
    be mended.

    Raises:
        TrainingError: a weight has no values.
    """
    empty = [name for name, tensor in weights.items() if tensor.numel() == 0]
    if empty:
        raise TrainingError(f"weights without values after gathering: {', '.join(empty[:5])}")
    with filling(folder, MODEL_LAST) as writing:
        copy_other_files(source.folder, writing, source.name)
        notes = _save(model, weights, source, writing)
        share_modes(writing, MODEL_LAST)
    return notes


def _save(model: Any, weights: dict[str, torch.Tensor], source: Source, writing: Path) -> list[str]:
    from transformers import GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of shards, in the middle of the job's own lines
    entries = read_generation(source.folder)
    if not entries and model.can_generate():
        entries = model.generation_config.to_diff_dict()  # made from config.json, where older models have theirs
    entries, notes = mend_generation(entries)
    entries["eos_token_id"] = unite_ends(entries.get("eos_token_id", _own_end(model)), source.end_of_turn)
    model.generation_config = GenerationConfig()  # written here instead
    model.save_pretrained(writing, state_dict=weights, safe_serialization=True)
    _write(writing / FILE, entries)
    _unite_in_config(writing / MODEL_LAST, source.end_of_turn)
    return [f"{FILE}: {note}" for note in notes]


def _own_end(model: Any) -> int | list[int] | None:
    config = model.config
    return getattr(config, "eos_token_id", None) or getattr(config.get_text_config(), "eos_token_id", None)


def _unite_in_config(path: Path, end_of_turn: int) -> None:
    """Unite the ends in config.json, for what does not read generation_config.json."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    sections = [section for section in (tree, tree.get("text_config")) if section and "eos_token_id" in section]
    for section in sections or [tree]:
        section["eos_token_id"] = unite_ends(section.get("eos_token_id"), end_of_turn)
    _write(path, tree)


def _write(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def try_export(work: Callable[[], list[str]], run: str) -> tuple[list[str], str | None]:
    """Do the export; returns its notes, and if it failed, the reason and what to do. The trained weights are safe.

    Nothing is raised: on an exception Ray Train would restart the workers, only to fail again.
    """
    try:
        return work(), None
    except Exception as error:  # whatever the saving of a model raises: it must not cost the training before it
        traceback.print_exc()
        known = disk_full(error) or storage_fault(error) or error
        reason = str(known).strip().splitlines()[0] if str(known).strip() else type(known).__name__
        named = reason if isinstance(known, OffsftError) else f"{type(known).__name__}: {reason}"
        return [], (
            f"training is done and its last checkpoint is kept, but the export failed: {named}; mend that and run"
            f" `python -m jobs.export_model run={run}`"
        )
