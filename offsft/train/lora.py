"""Low-rank adapters by peft: added before training, merged or kept after it."""

from typing import Any

import torch

from offsft.config import Lora
from offsft.storage import StoragePath, filling


def add_adapters(model: Any, settings: Lora) -> Any:
    """Put adapters into the model, in place, and freeze all else; returns peft's handle on it."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.targets,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def merged(
    fresh: Any, weights: dict[str, torch.Tensor], settings: Lora, adapter: StoragePath | None
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model with its trained adapters merged into it, and its weights.

    `fresh` is the model before training, `weights` the trained one's with their adapters. Where `adapter` is a folder,
    the adapter alone is left there too, in peft's format.
    """
    handle = add_adapters(fresh, settings)
    fresh.load_state_dict(weights, strict=False)
    if adapter is not None:
        with filling(adapter, "adapter_config.json") as writing:
            handle.save_pretrained(str(writing))
    model = handle.merge_and_unload()
    return model, model.state_dict()
