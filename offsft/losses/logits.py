"""Logits of a model's head, chunk by chunk of tokens in one buffer.

C = tokens of a chunk, D = hidden size, V = vocabulary, B = words of a block. All arithmetic is float32, or `split`: operands
of 16 bits, whose products are exact in float32 and are summed there. Logits are then the same but for the order of their
sums. A derivative, which has 32 bits, is split into the sum of two numbers of 16 bits, which keeps 16 of its 24 binary digits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

CHUNK_BYTES = 128 * 2**20
"""Size of a chunk's float32 logits if no number of tokens is given, on a CPU."""
GPU_CHUNK_BYTES = 512 * 2**20
"""The same on a GPU, which is half as fast with chunks of a quarter: each one reads and writes the head's whole gradient."""
_BLOCK_WORDS = 16384
"""Rows converted at a time if a head is not float32."""


@dataclass(frozen=True, slots=True)
class LogitTransform:
    """A model's transform of its logits after the head: `cap * tanh(scale * logits / cap)`; no cap where None."""

    scale: float = 1.0
    cap: float | None = None


UNCHANGED = LogitTransform()

HALVES = (torch.bfloat16, torch.float16)


def multiply_halves(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """The product (float32) of two matrices of 16-bit numbers, each product exact, summed in float32; into `out` if given."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    return torch.mm(left.float(), right.float(), out=out)


def add_product_of_halves(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add such a product to `total` (float32), in place."""
    if left.is_cuda:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(left.float(), right.float())


def split_halves(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors of 16-bit numbers whose sum is the float32 `values`, to 2^-17 of each for bfloat16."""
    high = values.to(dtype)
    return high, torch.sub(values, high, out=torch.empty_like(high))


@dataclass(slots=True)
class Chunk:
    """One chunk after its softmax; `softmax_CV` is the logits' memory, and may be overwritten."""

    hidden_CD: torch.Tensor
    """In float32, or in the head's type where products are split."""
    softmax_CV: torch.Tensor
    log_softmax_CV: torch.Tensor | None
    logprobs_C: torch.Tensor
    rows_C: torch.Tensor

    @property
    def entropy_C(self) -> torch.Tensor | None:
        """Entropy of the policy's distribution, nats; None without the log-probs of all words."""
        return None if self.log_softmax_CV is None else -(self.softmax_CV * self.log_softmax_CV).sum(1)


class Logits:
    """Computes logits, softmax and log-probs of one chunk; the next one overwrites them."""

    def __init__(
        self, weight_VD: torch.Tensor, transform: LogitTransform, chunk_tokens: int | None, *, split: bool = False
    ) -> None:
        self.weight_VD, self.transform = weight_VD, transform
        self.split = split and weight_VD.dtype in HALVES
        words = len(weight_VD)
        chunk_bytes = GPU_CHUNK_BYTES if weight_VD.is_cuda else CHUNK_BYTES
        self.chunk_tokens = chunk_tokens or max(1, chunk_bytes // (4 * words))
        self._step = words if weight_VD.dtype == torch.float32 else _BLOCK_WORDS
        self._logits: torch.Tensor | None = None
        self._slope_of_cap: torch.Tensor | None = None

    def parts(self, tokens: int) -> list[slice]:
        return [slice(start, min(start + self.chunk_tokens, tokens)) for start in range(0, tokens, self.chunk_tokens)]

    def blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """The head in float32: whole if it already is float32, else converted block by block."""
        for start in range(0, len(self.weight_VD), self._step):
            words = slice(start, start + self._step)
            yield words, self.weight_VD[words].float()

    def chunk(self, hidden_CD: torch.Tensor, targets_C: torch.Tensor, *, whole: bool = False) -> Chunk:
        """Softmax and log-probs of a chunk, with `whole` also those of all words; valid until the next call."""
        hidden_CD = hidden_CD.to(self.weight_VD.dtype) if self.split else hidden_CD.float()
        logits_CV = self.logits(hidden_CD)
        rows_C = torch.arange(len(targets_C), device=logits_CV.device)
        # Taken before the logits' memory becomes the softmax.
        picked_C = logits_CV[rows_C, targets_C]
        top_C = logits_CV.amax(1)
        shifted_CV = logits_CV.sub_(top_C[:, None])
        log_softmax_CV = shifted_CV.clone() if whole else None
        total_C = shifted_CV.exp_().sum(1)
        log_total_C = total_C.log()
        softmax_CV = shifted_CV.div_(total_C[:, None])
        if log_softmax_CV is not None:
            log_softmax_CV.sub_(log_total_C[:, None])
        return Chunk(hidden_CD, softmax_CV, log_softmax_CV, picked_C - top_C - log_total_C, rows_C)

    def logits(self, hidden_CD: torch.Tensor) -> torch.Tensor:
        """The model's logits (C, V), in a buffer that the next call overwrites."""
        # One buffer for all chunks: an allocation per chunk would be the largest of the whole step, again and again.
        if self._logits is None:
            self._logits = torch.empty(len(hidden_CD), len(self.weight_VD), device=hidden_CD.device)
        logits_CV = self._logits[: len(hidden_CD)]
        if self.split:
            multiply_halves(hidden_CD, self.weight_VD.T, logits_CV)
        else:
            for words, weight32_BD in self.blocks():
                torch.mm(hidden_CD, weight32_BD.T, out=logits_CV[:, words])
        if self.transform.scale != 1.0:
            logits_CV.mul_(self.transform.scale)
        if self.transform.cap is not None:
            logits_CV.div_(self.transform.cap).tanh_()
            self._slope_of_cap = 1 - logits_CV.square()
            logits_CV.mul_(self.transform.cap)
        return logits_CV

    def through_transform(self, slope_CV: torch.Tensor) -> None:
        """Turn derivatives by the model's logits into derivatives by the head's, in place, for the last chunk."""
        if self._slope_of_cap is not None:
            slope_CV.mul_(self._slope_of_cap)
        if self.transform.scale != 1.0:
            slope_CV.mul_(self.transform.scale)
