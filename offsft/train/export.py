"""The trained model as a Hugging Face folder, complete or absent."""

import shutil
from pathlib import Path
from typing import Any

import torch

from offsft.errors import TrainingError


def gathered_weights(engine: Any, *, zero3: bool, rank: int) -> dict[str, torch.Tensor] | None:
    """The model's weights on rank 0, None elsewhere. Under ZeRO-3 every rank must call: it is a collective."""
    if zero3:
        weights = engine._zero3_consolidated_16bit_state_dict()
    else:
        weights = engine.module.state_dict() if rank == 0 else None
    if rank != 0 or weights is None:
        return None
    prefix = "model."
    # The wrapper's own name for the model is not part of the model's.
    named = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    empty = [name for name, tensor in named.items() if tensor.numel() == 0]
    if empty:
        raise TrainingError(f"weights without values after gathering: {', '.join(empty[:5])}; the export was given up")
    return named


def export(model: Any, tokenizer: Any, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write weights (safetensors), configuration, generation settings and tokenizer; the folder appears whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, state_dict=weights, safe_serialization=True)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
