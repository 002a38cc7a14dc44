"""The trained model as a Hugging Face folder, complete or absent."""

from typing import Any

import torch

from offsft.errors import TrainingError
from offsft.model_files import MODEL_LAST
from offsft.storage import StoragePath, filling


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


def export(model: Any, tokenizer: Any, weights: dict[str, torch.Tensor], folder: StoragePath) -> None:
    """Write weights (safetensors), configuration, generation settings and tokenizer; the folder appears whole."""
    with filling(folder, MODEL_LAST) as writing:
        model.save_pretrained(writing, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(writing)
