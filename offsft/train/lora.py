"""Low-rank adapters (LoRA) by peft: added before training, merged or kept after it."""

from typing import Any

import torch

from offsft.config import Lora
from offsft.storage.paths import StoragePath, filling


def add_adapters(model: Any, settings: Lora) -> Any:
    """Add adapters to the model, in place, and freeze everything else; returns peft's wrapper around it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def merge_adapter(
    fresh: Any, weights: dict[str, torch.Tensor], settings: Lora, adapter: StoragePath | None
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Merge the trained adapters into the model; returns it and its weights.

    `fresh` is the model before training, `weights` the trained weights with their adapters. If `adapter` is a folder,
    the adapter alone is also saved there, in peft's format.
    """
    handle = add_adapters(fresh, settings)
    fresh.load_state_dict(weights, strict=False)
    if adapter is not None:
        with filling(adapter, "adapter_config.json") as writing:
            handle.save_pretrained(str(writing))
    model = handle.merge_and_unload()
    return model, model.state_dict()
