"""Computes token log-probs and the objective's loss from hidden states, in chunks of tokens; full logits never exist.

T = response tokens, C = tokens of a chunk, D = hidden size, V = vocabulary. All arithmetic is float32, also for
bfloat16 weights: at 152k words, bfloat16 logits alone put about 2 % of error into DFT's weights. For that reason GPUs
do not run Liger's kernel, whose chunks of logits have the dtype of the hidden states.

`_FusedHead` loops over chunks of tokens. For each, `Logits` computes softmax and log-probs, and the objective gives the
slope of every token's loss. `_Outputs` adds up loss and gradients before the next chunk reuses the memory. The order
within a chunk matters: the softmax becomes the gradient of the logits in place, so entropy and divergence come first.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from offsft.config.objective import Objective
from offsft.losses.logits import UNCHANGED, Chunk, Logits, LogitTransform, add_product_of_halves, split_halves
from offsft.losses.objectives import Losses, Tokens, losses


@dataclass(frozen=True, slots=True)
class Anchor:
    """The policy before training, for objectives with a divergence from its whole distribution.

    `coefficient` times KL(p_ref || p) is added to the loss of each token.
    """

    hidden_TD: torch.Tensor
    weight_VD: torch.Tensor
    coefficient: float


class HeadOutput(NamedTuple):
    """`loss` is the weighted sum (0-dim float32, differentiable); the rest is (T), float32, without gradient."""

    loss: torch.Tensor
    logprobs_T: torch.Tensor
    slopes_T: torch.Tensor
    """Minus the derivative of a token's loss by its log-prob: the weight on its -log p, excluding the divergence."""
    ratios_T: torch.Tensor
    """The objective's importance ratios; empty where it has none."""
    clipped_T: torch.Tensor
    """1 where a bound of the objective set the weight, else 0; empty where it has no bound."""


def fused_head(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_T: torch.Tensor,
    objective: Objective,
    tokens: Tokens,
    *,
    transform: LogitTransform = UNCHANGED,
    anchor: Anchor | None = None,
    chunk_tokens: int | None = None,
    split: bool = False,
) -> HeadOutput:
    """The objective's weighted loss, summed over tokens, and the per-token values that its metrics need.

    `split` multiplies 16-bit operands instead of float32 ones, for a head of 16 bits; see `offsft.losses.logits`.

    With T = 0 the loss is 0 and still depends on hidden and weight, so that ranks without work join every reduction.
    """
    assert (anchor is not None) == objective.needs_anchor
    return HeadOutput(
        *_FusedHead.apply(hidden_TD, weight_VD, targets_T, objective, tokens, transform, anchor, chunk_tokens, split)  # type: ignore[misc]
    )


@torch.no_grad()
def token_logprobs(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_T: torch.Tensor,
    *,
    transform: LogitTransform = UNCHANGED,
    chunk_tokens: int | None = None,
    split: bool = False,
) -> torch.Tensor:
    """Log-probs of the targets (T, float32), by the same arithmetic as the loss."""
    logits = Logits(weight_VD, transform, chunk_tokens, split=split)
    parts = [logits.chunk(hidden_TD[p], targets_T[p]).logprobs_C for p in logits.parts(len(targets_T))]
    return torch.cat(parts) if parts else hidden_TD.new_zeros(0, dtype=torch.float32)


class _FusedHead(torch.autograd.Function):
    """Computes both gradients in the forward pass, while a chunk's logits exist; backward only scales them.

    Otherwise backward would have to recompute the logits: a product of T x D x V, the most expensive one here. The cost
    is memory for one gradient of the head, from the forward pass on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        targets_T: torch.Tensor,
        objective: Objective,
        tokens: Tokens,
        transform: LogitTransform,
        anchor: Anchor | None,
        chunk_tokens: int | None,
        split: bool,
    ) -> tuple[torch.Tensor, ...]:
        # Nothing here is recorded by autograd: the gradients are computed by hand below.
        hidden_TD, weight_VD = hidden_TD.detach(), weight_VD.detach()
        logits = Logits(weight_VD, transform, chunk_tokens, split=split)
        anchored = _Anchored(anchor, transform, logits.chunk_tokens) if anchor else None
        out = _Outputs(hidden_TD, weight_VD, needs_weight=ctx.needs_input_grad[1])
        # A weight that depends on a whole row is unknown within a chunk: all log-probs come first, at the cost of
        # computing the logits twice.
        known = _whole_rows(hidden_TD, targets_T, logits, objective, tokens) if objective.needs_whole_rows else None
        for part in logits.parts(len(targets_T)):
            chunk = logits.chunk(
                hidden_TD[part], targets_T[part], whole=objective.needs_entropy or objective.needs_anchor
            )
            chosen = known.part(part) if known else _evaluate(objective, chunk, tokens.part(part))
            out.add(chunk, chosen)
            # d loss / d logits = slope * (softmax - one-hot), computed in the logits' own memory.
            slope_CV, slope_C = chunk.softmax_CV, chosen.slope_C
            if anchored:
                out.loss += anchored.add_slope(part, chunk, slope_C, tokens.weight_T[part])
            else:
                slope_CV.mul_(slope_C[:, None])
            # After the softmax is multiplied by its slope: a target's entry is softmax * slope - slope.
            slope_CV[chunk.rows_C, targets_T[part]] -= slope_C
            logits.through_transform(slope_CV)
            out.add_gradients(part, slope_CV, chunk.hidden_CD, logits)
        ctx.gradients = out.gradients(weight_VD.dtype)
        result = (out.loss, *out.per_token())
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # Scaled in place and released: a head's gradient is large, and one copy is enough.
        found, ctx.gradients = ctx.gradients, None
        if found is None:
            raise RuntimeError("the fused head's backward pass can run once only")
        hidden_TD, weight_VD = (None if gradient is None else gradient.mul_(grads[0]) for gradient in found)
        return hidden_TD, weight_VD, *(None,) * 7


class _Anchored:
    """The divergence from the policy before training, chunk by chunk."""

    def __init__(self, anchor: Anchor, transform: LogitTransform, chunk_tokens: int) -> None:
        self._anchor = anchor
        self._logits = Logits(anchor.weight_VD, transform, chunk_tokens)

    def add_slope(self, part: slice, chunk: Chunk, slope_C: torch.Tensor, weight_C: torch.Tensor) -> torch.Tensor:
        """Turn the softmax into the objective's slope, including this term's part; returns the term's weighted loss.

        KL = sum of p_ref (log p_ref - log p); its derivative by the policy's logits is p - p_ref.
        """
        assert chunk.log_softmax_CV is not None
        reference_CV = torch.log_softmax(self._logits.logits(self._anchor.hidden_TD[part].float()), dim=1)
        probs_CV = reference_CV.exp()
        divergence_C = reference_CV.sub_(chunk.log_softmax_CV).mul_(probs_CV).sum(1)
        factor_C = self._anchor.coefficient * weight_C
        chunk.softmax_CV.mul_((slope_C + factor_C)[:, None]).sub_(probs_CV.mul_(factor_C[:, None]))
        return (divergence_C * factor_C).sum()


@dataclass(slots=True)
class _Chosen:
    """The objective's result for some tokens. `slope_C` is minus d loss / d log-prob, times the token's weight."""

    loss_C: torch.Tensor
    slope_C: torch.Tensor
    unweighted_C: torch.Tensor
    ratio_C: torch.Tensor | None
    clipped_C: torch.Tensor | None

    def part(self, tokens: slice) -> "_Chosen":
        ratio, clipped = self.ratio_C, self.clipped_C
        return _Chosen(
            self.loss_C[tokens],
            self.slope_C[tokens],
            self.unweighted_C[tokens],
            None if ratio is None else ratio[tokens],
            None if clipped is None else clipped[tokens],
        )


def _whole_rows(
    hidden_TD: torch.Tensor, targets_T: torch.Tensor, logits: Logits, objective: Objective, tokens: Tokens
) -> _Chosen:
    """The objective over all tokens at once, from log-probs first computed chunk by chunk."""
    parts = [logits.chunk(hidden_TD[p], targets_T[p]).logprobs_C for p in logits.parts(len(targets_T))]
    logprobs_T = torch.cat(parts) if parts else hidden_TD.new_zeros(0, dtype=torch.float32)
    return _slopes(objective, logprobs_T, tokens)


def _evaluate(objective: Objective, chunk: Chunk, tokens: Tokens) -> _Chosen:
    if objective.needs_entropy:
        tokens = replace(tokens, entropy_T=chunk.entropy_C, most_entropy=math.log(chunk.softmax_CV.shape[1]))
    return _slopes(objective, chunk.logprobs_C, tokens)


def _slopes(objective: Objective, logprobs_C: torch.Tensor, tokens: Tokens) -> _Chosen:
    """The objective's losses and their derivatives by the log-probs."""
    with torch.enable_grad():
        leaf_C = logprobs_C.detach().requires_grad_()
        found: Losses = losses(objective, leaf_C, tokens)
        (derivative_C,) = torch.autograd.grad(found.loss_T.sum(), leaf_C)
    weight_C = tokens.weight_T
    return _Chosen(
        found.loss_T.detach() * weight_C, -derivative_C * weight_C, -derivative_C, found.ratio_T, found.clipped_T
    )


class _Outputs:
    """The sums and per-token values collected over the chunks."""

    def __init__(self, hidden_TD: torch.Tensor, weight_VD: torch.Tensor, *, needs_weight: bool) -> None:
        self.loss = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        self._chosen: list[tuple[torch.Tensor, _Chosen]] = []
        self._empty = torch.zeros(0, dtype=torch.float32, device=hidden_TD.device)
        self._grad_hidden_TD = torch.empty_like(hidden_TD)
        self._grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None

    def add(self, chunk: Chunk, chosen: _Chosen) -> None:
        self.loss += chosen.loss_C.sum()
        self._chosen.append((chunk.logprobs_C, chosen))

    def add_gradients(self, part: slice, slope_CV: torch.Tensor, hidden_CD: torch.Tensor, logits: Logits) -> None:
        grad_hidden_CD = torch.zeros_like(hidden_CD, dtype=torch.float32)
        halves = split_halves(slope_CV, logits.weight_VD.dtype) if logits.split else ()
        for half_CV in halves:
            add_product_of_halves(grad_hidden_CD, half_CV, logits.weight_VD)
            if self._grad_weight_VD is not None:
                add_product_of_halves(self._grad_weight_VD, half_CV.T, hidden_CD)
        if not halves:
            for words, weight32_BD in logits.blocks():
                grad_hidden_CD.addmm_(slope_CV[:, words], weight32_BD)
            if self._grad_weight_VD is not None:
                self._grad_weight_VD.addmm_(slope_CV.T, hidden_CD)
        self._grad_hidden_TD[part] = grad_hidden_CD.to(self._grad_hidden_TD.dtype)

    def gradients(self, weight_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        grad_weight_VD = self._grad_weight_VD
        return self._grad_hidden_TD, None if grad_weight_VD is None else grad_weight_VD.to(weight_dtype)

    def per_token(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probs, slopes, ratios and clipped, each (T) or empty."""
        return (
            self._cat([logprobs_C for logprobs_C, _ in self._chosen]),
            self._cat([chosen.unweighted_C for _, chosen in self._chosen]),
            self._cat([chosen.ratio_C for _, chosen in self._chosen]),
            self._cat([chosen.clipped_C for _, chosen in self._chosen]),
        )

    def _cat(self, parts: list[Any]) -> torch.Tensor:
        there = [part.float() for part in parts if part is not None]
        return torch.cat(there) if there else self._empty
