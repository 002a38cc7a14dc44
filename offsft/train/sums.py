"""What a global batch adds up to, over all micro-batches and ranks, and the metrics made of it."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from offsft.fused_head import HeadOutput

_BIN_NATS = 0.01
_BINS = 4001
"""Log-ratios are counted in bins of 0.01 nats from -20 to 20; what lies beyond is counted at the ends."""
_QUANTILES = (0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over a global batch; log-probs in nats. The number and order of ranks and micro-batches do not matter."""

    loss: float
    nll: float
    weight: float
    """Of the tokens' weights on their -log p, without those of their sources."""
    weight_squared: float
    clipped: float
    tokens: float
    """Response tokens."""
    row_tokens: float
    """Prompt and response tokens."""
    computed_tokens: float
    """Tokens that went through the model, those of empty micro-batches included."""
    grad_norm: float = math.nan
    """Norm of the gradient of the whole step, before clipping; NaN where no update was made."""
    ratio_counts: tuple[float, ...] = ()
    """Importance ratios counted by bins; empty where the objective has none."""
    has_bounds: bool = False
    skipped: bool = False
    """Loss or gradient was not finite, and the update was left out: the weights are as before."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are numbers. DeepSpeed reports the norm of a gradient that is none as -1."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm) and self.grad_norm >= 0

    def metrics(self, *, mass: float, seconds: float) -> dict[str, Any]:
        """One step's line of metrics.jsonl. `mass`: what the loss was divided by."""
        tokens = max(1.0, self.tokens)  # none where every row of the step was cut within its prompt
        line: dict[str, Any] = {
            "loss/objective": self.loss / mass,
            "loss/nll": self.nll / tokens,
            "optim/grad_norm": self.grad_norm,
            "weight/mean": self.weight / tokens,
            "weight/ess_share": self.weight_ess_share,
            "perf/tokens_per_s": self.row_tokens / seconds,
            "perf/padding_share": 1 - self.row_tokens / max(1.0, self.computed_tokens),
            "tokens": int(self.row_tokens),
            "computed_tokens": int(self.computed_tokens),
            "response_tokens": int(self.tokens),
        }
        if self.has_bounds:
            line["weight/clipped_share"] = self.clipped / tokens
        return line | self._ratio_quantiles()

    @property
    def weight_ess_share(self) -> float | None:
        """Effective sample size of the token weights, as a share of the tokens; None where there is no weight."""
        return self.weight**2 / (self.weight_squared * self.tokens) if self.weight_squared and self.tokens else None

    def _ratio_quantiles(self) -> dict[str, float]:
        total = sum(self.ratio_counts)
        if not total:
            return {}
        reached = torch.tensor(self.ratio_counts, dtype=torch.float64).cumsum(0) / total
        places = [int((reached < quantile - 1e-12).sum()) for quantile in _QUANTILES]
        return {
            f"ratio/p{round(100 * quantile)}": math.exp((place - _BINS // 2) * _BIN_NATS)
            for quantile, place in zip(_QUANTILES, places, strict=True)
        }


_ADDED = [field.name for field in fields(Sums)][:8]


class Adder:
    """Adds up micro-batches on the device, so that nothing waits for it, and ranks at the end."""

    def __init__(self, device: torch.device | str) -> None:
        self._sums = torch.zeros(len(_ADDED), dtype=torch.float64, device=device)
        self._counts = torch.zeros(_BINS, dtype=torch.float64, device=device)
        self._has_bounds = False

    def add(self, out: HeadOutput, *, row_tokens: int, computed_tokens: int) -> None:
        """One micro-batch: what the head returned of it, and its size."""
        slopes_P = out.slopes_T.double()
        counts = torch.tensor([len(slopes_P), row_tokens, computed_tokens], dtype=torch.float64, device=slopes_P.device)
        parts = [
            out.loss.detach().double(),
            -out.logprobs_T.double().sum(),
            slopes_P.sum(),
            slopes_P.square().sum(),
            out.clipped_T.double().sum(),
        ]
        self._sums += torch.cat([torch.stack(parts), counts])
        self._has_bounds |= len(out.clipped_T) > 0
        bins = (out.ratios_T.log() / _BIN_NATS).nan_to_num().round().clamp(
            -(_BINS // 2), _BINS // 2
        ).long() + _BINS // 2
        self._counts += torch.bincount(bins, minlength=_BINS)

    def total(self, ranks: int) -> Sums:
        """Over all ranks; collective."""
        together = torch.cat([self._sums, self._counts, self._sums.new_tensor([float(self._has_bounds)])])
        if ranks > 1:
            torch.distributed.all_reduce(together)
        values = together.tolist()
        counts = tuple(values[len(_ADDED) : -1])
        return Sums(
            **dict(zip(_ADDED, values[: len(_ADDED)], strict=True)),
            ratio_counts=counts if any(counts) else (),
            has_bounds=bool(values[-1]),
        )
