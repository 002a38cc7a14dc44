"""One optimizer step: packed micro-batches through the policy and the fused head, divided once by the global count."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from offsft.errors import ModelError
from offsft.fused_head import fused_head
from offsft.objective_config import Objective
from offsft.objectives import token_loss, token_weights
from offsft.train.rows import Packed, Row, pack


class PolicyLoss(nn.Module):
    """A causal language model whose forward pass returns the objective's summed loss instead of logits."""

    def __init__(self, model: Any, objective: Objective, *, chunk_tokens: int) -> None:
        super().__init__()
        if getattr(model.config, "final_logit_softcapping", None) or getattr(model.config, "logit_scale", None):
            raise ModelError(
                f"{model.config.model_type} scales or caps its logits, which the fused head does not do yet"
            )
        self.model = model
        head = model.get_output_embeddings()
        if getattr(head, "bias", None) is not None:
            raise ModelError(f"{model.config.model_type} has a bias on its head, which the fused head does not do yet")
        loss = token_loss(objective)
        # The head's own module computes the loss, so that whatever wraps modules applies to it: under ZeRO-3 its
        # weight has no data but between DeepSpeed's hooks around this call.
        head.forward = lambda hidden_PD, targets_P: fused_head(
            hidden_PD, head.weight, targets_P, loss, chunk_tokens=chunk_tokens
        )

    def forward(self, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed loss (0-dim) and log-probs of the targets (P, no gradient) of one packed micro-batch."""
        hidden_1TD = self.model.base_model(
            input_ids=packed.input_ids_1T, position_ids=packed.position_ids_1T, use_cache=False
        ).last_hidden_state
        return self.model.get_output_embeddings()(hidden_1TD[0, packed.predicting_P], packed.targets_P)


@dataclass(frozen=True, slots=True)
class Sums:
    """What one global batch adds up to, over all micro-batches and ranks. Log-probs in nats."""

    loss: float
    nll: float
    weight: float
    weight_squared: float
    tokens: float
    model_tokens: float
    grad_norm: float
    """Norm of the gradient of the whole step, before clipping; NaN where no update was made."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are numbers. DeepSpeed reports the norm of a gradient that is none as -1."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm) and self.grad_norm >= 0

    @property
    def weight_ess_share(self) -> float | None:
        """Effective sample size of the token weights, as a share of the tokens; None where there is no weight."""
        return self.weight**2 / (self.weight_squared * self.tokens) if self.weight_squared and self.tokens else None


def run_step(
    engine: Any,
    rows: list[Row],
    batches: list[list[int]],
    *,
    objective: Objective,
    global_tokens: int,
    ranks: int,
    learning_rate: float,
) -> Sums:
    """Forward, backward and one update on this rank's micro-batches of a global batch of `global_tokens` response tokens.

    DeepSpeed averages gradients over ranks; the factor `ranks` undoes that, so that the gradient is that of the sum
    over the global batch divided by its tokens. A non-finite loss is returned, on every rank, before any update.
    """
    sums = torch.zeros(6, dtype=torch.float64, device=engine.device)
    for number, batch in enumerate(batches):
        packed = pack(rows, batch).to(engine.device)
        loss, logprobs_P = engine(packed)
        sums += _sums(objective, loss, logprobs_P, model_tokens=packed.input_ids_1T.numel() if batch else 0)
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        engine.backward(loss * (ranks / global_tokens))
    if ranks > 1:
        distributed.all_reduce(sums)
    totals = sums.tolist()
    if not math.isfinite(totals[0]):
        return Sums(*totals, grad_norm=math.nan)
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    # Without sharding and in float32 DeepSpeed clips by a norm that it does not tell; it is that of the gradients here.
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    own_norm = float(nn.utils.get_total_norm(gradients)) if gradients else math.nan
    engine.step()
    norm = engine.get_global_grad_norm()
    return Sums(*totals, grad_norm=own_norm if norm is None else float(norm))


def _sums(objective: Objective, loss: torch.Tensor, logprobs_P: torch.Tensor, *, model_tokens: int) -> torch.Tensor:
    """One micro-batch's part of `Sums`, in its order, on the device of the losses (so that nothing waits for it)."""
    weights_P = token_weights(objective, logprobs_P).double()
    counts = torch.tensor([len(logprobs_P), model_tokens], dtype=torch.float64, device=loss.device)
    parts = [loss.detach().double(), -logprobs_P.double().sum(), weights_P.sum(), weights_P.square().sum()]
    return torch.cat([torch.stack(parts), counts])
