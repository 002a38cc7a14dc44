"""Turns a model's dropout off during training."""

import copy
from typing import Any

from torch import nn


def turn_off_dropout(model: nn.Module) -> None:
    """Put a model in training into evaluation mode, except for layers that recompute activations.

    A layer recomputes its activations only in training mode: such a layer alone, without its submodules, stays in it,
    and its own dropout rates become 0. The model's configuration, which is exported, stays as it is.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True
            _zero_rates(vars(module))
            if module is not model and "config" in vars(module):
                module.config = copy.copy(module.config)
                _zero_rates(vars(module.config))


def _zero_rates(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, float) and ("drop" in name or "jitter" in name):
            values[name] = 0.0
