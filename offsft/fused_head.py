"""Hidden states to token log-probs and the objective's loss, in chunks of tokens; full logits never exist.

T = response tokens, D = hidden size, V = vocabulary. All arithmetic is float32: at 152k words, bfloat16 logits alone
put about 2 % of error into DFT's weights.
"""

from typing import Any

import torch

from offsft.objectives import TokenLoss


def fused_head(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_T: torch.Tensor,
    loss: TokenLoss,
    *,
    chunk_tokens: int = 512,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses (0-dim float32, differentiable in hidden and weight) and the log-probs (T, no gradient).

    With T = 0 the loss is 0 and still reaches hidden and weight, so that ranks without work join every reduction.
    """
    return _FusedHead.apply(hidden_TD, weight_VD, targets_T, loss, chunk_tokens)  # type: ignore[return-value]


class _FusedHead(torch.autograd.Function):
    """Computes both gradients in the forward pass, while a chunk's logits exist; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        targets_T: torch.Tensor,
        loss: TokenLoss,
        chunk_tokens: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        logprobs_T = torch.empty(len(targets_T), dtype=torch.float32, device=hidden_TD.device)
        grad_hidden_TD = torch.empty_like(hidden_TD)
        weight32_VD = weight_VD.detach().float()
        grad_weight_VD = torch.zeros_like(weight32_VD) if ctx.needs_input_grad[1] else None
        for start in range(0, len(targets_T), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            hidden32_CD, targets_C = hidden_TD[part].detach().float(), targets_T[part]
            scores_CV = hidden32_CD @ weight32_VD.T
            normalizer_C = torch.logsumexp(scores_CV, dim=1)
            rows_C = torch.arange(len(targets_C), device=scores_CV.device)
            logprobs_C = scores_CV[rows_C, targets_C] - normalizer_C
            losses, slope_C = _loss_and_slope(loss, logprobs_C)
            total += losses
            logprobs_T[part] = logprobs_C
            # d loss / d logits = slope * (one-hot - softmax), made in the logits' own memory.
            scores_CV.sub_(normalizer_C[:, None]).exp_().mul_(-slope_C[:, None])
            scores_CV[rows_C, targets_C] += slope_C
            grad_hidden_TD[part] = (scores_CV @ weight32_VD).to(hidden_TD.dtype)
            if grad_weight_VD is not None:
                grad_weight_VD.addmm_(scores_CV.T, hidden32_CD)
        ctx.grad_hidden_TD = grad_hidden_TD
        ctx.grad_weight_VD = None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype)
        ctx.mark_non_differentiable(logprobs_T)
        return total, logprobs_T

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        upstream = grads[0]
        grad_weight_VD = (
            None if ctx.grad_weight_VD is None else ctx.grad_weight_VD * upstream.to(ctx.grad_weight_VD.dtype)
        )
        return ctx.grad_hidden_TD * upstream.to(ctx.grad_hidden_TD.dtype), grad_weight_VD, None, None, None


def _loss_and_slope(loss: TokenLoss, logprobs_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss, and its derivative by each log-prob."""
    with torch.enable_grad():
        leaf_C = logprobs_C.detach().requires_grad_()
        total = loss(leaf_C).sum()
        (slope_C,) = torch.autograd.grad(total, leaf_C)
    return total.detach(), slope_C
