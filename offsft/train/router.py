"""The load-balancing loss of mixture-of-experts models, by the model's own function and coefficient."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from offsft.errors import ModelError

_COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")
_ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]


@dataclass(frozen=True, slots=True)
class RouterLoss:
    """The load-balancing loss of a mixture of experts (arXiv 2101.03961), over the tokens of one micro-batch."""

    coefficient: float
    function: Callable[..., torch.Tensor]
    experts: int
    top_k: int

    def __call__(self, router_logits: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Mean over tokens and layers (0-dim), times the coefficient; the logits are (T, experts) per layer."""
        return self.coefficient * self.function(router_logits, self.experts, self.top_k, None)


def router_loss(model: Any, coefficient: float | None) -> RouterLoss | None:
    """A model's balancing loss, or None if it has none; `coefficient` defaults to the model's configuration.

    Raises:
        ModelError: there is a coefficient, but the model has no known function for the loss.
    """
    if coefficient is None:
        coefficient = _own_coefficient(model)
    experts = getattr(model, "num_experts", None)
    if not coefficient or experts == 0:
        return None
    function = getattr(sys.modules[type(model).__module__], "load_balancing_loss_func", None)
    known = function is not None and list(inspect.signature(function).parameters) == _ARGUMENTS
    top_k = getattr(model, "num_experts_per_tok", None)
    if function is None or not known or experts is None or top_k is None:
        raise ModelError(
            f"{model.config.model_type} has a loss that balances its experts (coefficient {coefficient:g}), which is not"
            " supported for this family; set train.router_loss=0 to train without it, or use another model"
        )
    return RouterLoss(coefficient, function, experts, top_k)


def _own_coefficient(model: Any) -> float:
    settings = model.config.get_text_config()
    found = [getattr(settings, name, None) for name in _COEFFICIENTS]
    return next((float(value) for value in found if value), 0.0)
