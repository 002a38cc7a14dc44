"""Hidden states to token log-probs and the objective's loss, in chunks of tokens; full logits never exist.

T = response tokens, C = tokens of a chunk, D = hidden size, V = vocabulary. All arithmetic is float32, also over
bfloat16 weights: at 152k words, bfloat16 logits alone put about 2 % of error into DFT's weights. For that reason it is
not Liger's kernel that runs on GPUs, whose chunks of logits have the type of the hidden states.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from offsft.config.objective import Objective
from offsft.objectives import Losses, Tokens, losses

CHUNK_BYTES = 128 * 2**20
"""Size of a chunk's float32 logits where no number of tokens is asked for."""
_BLOCK_WORDS = 16384
"""Rows of a head that is not float32 are converted so many at a time."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """What a model does to its logits after the head: `cap * tanh(scale * logits / cap)`; no cap where None."""

    scale: float = 1.0
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """The policy before training, for objectives with a divergence from its whole distribution.

    The loss of a token gains `coefficient` times KL(p_ref || p).
    """

    hidden_TD: torch.Tensor
    weight_VD: torch.Tensor
    coefficient: float


class HeadOutput(NamedTuple):
    """`loss` is the weighted sum (0-dim float32, differentiable); the rest is (T), float32, without gradient."""

    loss: torch.Tensor
    logprobs_T: torch.Tensor
    slopes_T: torch.Tensor
    """Minus the derivative of a token's loss by its log-prob: the weight on its -log p, without the divergence."""
    ratios_T: torch.Tensor
    """The objective's importance ratios; empty where it has none."""
    clipped_T: torch.Tensor
    """1 where a bound of the objective decided the weight, else 0; empty where it has no bound."""


def fused_head(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_T: torch.Tensor,
    objective: Objective,
    tokens: Tokens,
    *,
    transform: LogitTransform = LogitTransform(),
    anchor: Anchor | None = None,
    chunk_tokens: int | None = None,
) -> HeadOutput:
    """The objective's loss, summed over tokens by their weights, and what its metrics need.

    With T = 0 the loss is 0 and still reaches hidden and weight, so that ranks without work join every reduction.
    """
    assert (anchor is not None) == objective.needs_anchor
    return HeadOutput(
        *_FusedHead.apply(hidden_TD, weight_VD, targets_T, objective, tokens, transform, anchor, chunk_tokens)  # type: ignore[misc]
    )


@torch.no_grad()
def token_logprobs(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_T: torch.Tensor,
    *,
    transform: LogitTransform = LogitTransform(),
    chunk_tokens: int | None = None,
) -> torch.Tensor:
    """Log-probs of the targets (T, float32), by the same arithmetic as the loss."""
    logits = _Logits(weight_VD, transform, chunk_tokens)
    parts = [logits.chunk(hidden_TD[p], targets_T[p]).logprobs_C for p in logits.parts(len(targets_T))]
    return torch.cat(parts) if parts else hidden_TD.new_zeros(0, dtype=torch.float32)


class _FusedHead(torch.autograd.Function):
    """Computes both gradients in the forward pass, while a chunk's logits exist; backward only scales them."""

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
    ) -> tuple[torch.Tensor, ...]:
        hidden_TD, weight_VD = hidden_TD.detach(), weight_VD.detach()
        logits = _Logits(weight_VD, transform, chunk_tokens)
        anchored = _Anchored(anchor, transform, logits.chunk_tokens) if anchor else None
        out = _Outputs(hidden_TD, weight_VD, needs_weight=ctx.needs_input_grad[1])
        known = _whole_rows(hidden_TD, targets_T, logits, objective, tokens) if objective.needs_whole_rows else None
        for part in logits.parts(len(targets_T)):
            chunk = logits.chunk(
                hidden_TD[part], targets_T[part], whole=objective.needs_entropy or objective.needs_anchor
            )
            chosen = known.part(part) if known else _evaluate(objective, chunk, tokens.part(part))
            out.add(chunk, chosen)
            # d loss / d logits = slope * (softmax - one-hot), made in the logits' own memory.
            slope_CV, slope_C = chunk.softmax_CV, chosen.slope_C
            if anchored:
                out.loss += anchored.add_slope(part, chunk, slope_C, tokens.weight_T[part])
            else:
                slope_CV.mul_(slope_C[:, None])
            slope_CV[chunk.rows_C, targets_T[part]] -= slope_C
            logits.through_transform(slope_CV)
            out.add_gradients(part, slope_CV, chunk.hidden32_CD, logits)
        ctx.gradients = out.gradients(weight_VD.dtype)
        result = (out.loss, *out.per_token())
        ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # Scaled in place and let go of: a head's gradient is large, and one of it is enough.
        found, ctx.gradients = ctx.gradients, None
        if found is None:
            raise RuntimeError("the fused head's backward pass can run once only")
        hidden_TD, weight_VD = (None if gradient is None else gradient.mul_(grads[0]) for gradient in found)
        return hidden_TD, weight_VD, *(None,) * 6


@dataclass(slots=True)
class _Chunk:
    """One chunk after its softmax; `softmax_CV` is the logits' memory, and free to be overwritten."""

    hidden32_CD: torch.Tensor
    softmax_CV: torch.Tensor
    log_softmax_CV: torch.Tensor | None
    logprobs_C: torch.Tensor
    rows_C: torch.Tensor

    @property
    def entropy_C(self) -> torch.Tensor | None:
        """Entropy of the policy's distribution, nats; None where the log-probs of all words are not there."""
        return None if self.log_softmax_CV is None else -(self.softmax_CV * self.log_softmax_CV).sum(1)


class _Logits:
    """Logits of one chunk after the other, in one piece of memory."""

    def __init__(self, weight_VD: torch.Tensor, transform: LogitTransform, chunk_tokens: int | None) -> None:
        self.weight_VD, self.transform = weight_VD, transform
        words = len(weight_VD)
        self.chunk_tokens = chunk_tokens or max(1, CHUNK_BYTES // (4 * words))
        self._step = words if weight_VD.dtype == torch.float32 else _BLOCK_WORDS
        self._logits: torch.Tensor | None = None
        self._slope_of_cap: torch.Tensor | None = None

    def parts(self, tokens: int) -> list[slice]:
        return [slice(start, min(start + self.chunk_tokens, tokens)) for start in range(0, tokens, self.chunk_tokens)]

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The head in float32: whole where it is float32 already, else converted block by block."""
        for start in range(0, len(self.weight_VD), self._step):
            words = slice(start, start + self._step)
            yield words, self.weight_VD[words].float()

    def chunk(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor, *, whole: bool = False) -> _Chunk:
        """Softmax and log-probs of a chunk, those of all words too where `whole`; valid until the next one."""
        hidden32_CD = hidden_CD.float()
        logits_CV = self.logits(hidden32_CD)
        rows_C = torch.arange(len(targets_C), device=logits_CV.device)
        picked_C = logits_CV[rows_C, targets_C]
        top_C = logits_CV.amax(1)
        shifted_CV = logits_CV.sub_(top_C[:, None])
        log_softmax_CV = shifted_CV.clone() if whole else None
        total_C = shifted_CV.exp_().sum(1)
        log_total_C = total_C.log()
        softmax_CV = shifted_CV.div_(total_C[:, None])
        if log_softmax_CV is not None:
            log_softmax_CV.sub_(log_total_C[:, None])
        return _Chunk(hidden32_CD, softmax_CV, log_softmax_CV, picked_C - top_C - log_total_C, rows_C)

    def logits(self, hidden32_CD: torch.Tensor) -> torch.Tensor:
        """The model's logits (C, V), in memory that the next call overwrites."""
        if self._logits is None:
            self._logits = torch.empty(len(hidden32_CD), len(self.weight_VD), device=hidden32_CD.device)
        logits_CV = self._logits[: len(hidden32_CD)]
        for words, weight32_BD in self.blocks():
            torch.mm(hidden32_CD, weight32_BD.T, out=logits_CV[:, words])
        if self.transform.scale != 1.0:
            logits_CV.mul_(self.transform.scale)
        if self.transform.cap is not None:
            logits_CV.div_(self.transform.cap).tanh_()
            self._slope_of_cap = 1 - logits_CV.square()
            logits_CV.mul_(self.transform.cap)
        return logits_CV

    def through_transform(self, slope_CV: torch.Tensor) -> None:
        """Derivatives by the model's logits to derivatives by the head's, in place, for the last chunk."""
        if self._slope_of_cap is not None:
            slope_CV.mul_(self._slope_of_cap)
        if self.transform.scale != 1.0:
            slope_CV.mul_(self.transform.scale)


class _Anchored:
    """The divergence from the policy before training, chunk by chunk."""

    def __init__(self, anchor: Anchor, transform: LogitTransform, chunk_tokens: int) -> None:
        self._anchor = anchor
        self._logits = _Logits(anchor.weight_VD, transform, chunk_tokens)

    def add_slope(self, part: slice, chunk: _Chunk, slope_C: torch.Tensor, weight_C: torch.Tensor) -> torch.Tensor:
        """Make the softmax the objective's slope, this term's part included; returns the term's weighted loss.

        KL = sum of p_ref (log p_ref - log p), whose derivative by the policy's logits is p - p_ref.
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
    """The objective's outcome for some tokens. `slope_C` is minus d loss / d log-prob, times the token's weight."""

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
    hidden_TD: torch.Tensor, targets_T: torch.Tensor, logits: _Logits, objective: Objective, tokens: Tokens
) -> _Chosen:
    """The objective over all tokens at once, from log-probs that are computed chunk by chunk first."""
    parts = [logits.chunk(hidden_TD[p], targets_T[p]).logprobs_C for p in logits.parts(len(targets_T))]
    logprobs_T = torch.cat(parts) if parts else hidden_TD.new_zeros(0, dtype=torch.float32)
    return _slopes(objective, logprobs_T, tokens)


def _evaluate(objective: Objective, chunk: _Chunk, tokens: Tokens) -> _Chosen:
    if objective.needs_entropy:
        tokens = replace(tokens, entropy_T=chunk.entropy_C)
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
    """What the chunks add up to."""

    def __init__(self, hidden_TD: torch.Tensor, weight_VD: torch.Tensor, *, needs_weight: bool) -> None:
        self.loss = torch.zeros((), dtype=torch.float32, device=hidden_TD.device)
        self._chosen: list[tuple[torch.Tensor, _Chosen]] = []
        self._empty = torch.zeros(0, dtype=torch.float32, device=hidden_TD.device)
        self._grad_hidden_TD = torch.empty_like(hidden_TD)
        self._grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None

    def add(self, chunk: _Chunk, chosen: _Chosen) -> None:
        self.loss += chosen.loss_C.sum()
        self._chosen.append((chunk.logprobs_C, chosen))

    def add_gradients(self, part: slice, slope_CV: torch.Tensor, hidden32_CD: torch.Tensor, logits: _Logits) -> None:
        grad_hidden_CD = torch.zeros_like(hidden32_CD)
        for words, weight32_BD in logits.blocks():
            grad_hidden_CD.addmm_(slope_CV[:, words], weight32_BD)
        self._grad_hidden_TD[part] = grad_hidden_CD.to(self._grad_hidden_TD.dtype)
        if self._grad_weight_VD is not None:
            self._grad_weight_VD.addmm_(slope_CV.T, hidden32_CD)

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
