"""The sums over a global batch, over all its micro-batches and ranks, and the metrics computed from them."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from offsft.losses.fused_head import HeadOutput

_BIN_NATS = 0.01
_BINS = 4001
"""Log-ratios are counted in bins of 0.01 nats from -20 to 20; values beyond are counted in the outermost bins."""
_QUANTILES = (0.1, 0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over a global batch; log-probs in nats. The number and order of ranks and micro-batches do not matter."""

    loss: float
    nll: float
    weight: float
    """Sum of the tokens' weights on their -log p, without the sources' weights."""
    weight_squared: float
    clipped: float
    tokens: float
    """Response tokens."""
    row_tokens: float
    """Prompt and response tokens."""
    computed_tokens: float
    """Tokens that went through the model, those of empty micro-batches included."""
    router_loss: float = 0.0
    """Sum of the micro-batches' router losses, each times its share of the global batch's tokens."""
    has_router: bool = False
    grad_norm: float = math.nan
    """Gradient norm of the whole step, before clipping; NaN where no update was made."""
    ratio_counts: tuple[float, ...] = ()
    """Number of importance ratios per bin; empty where the objective has none."""
    has_bounds: bool = False
    skipped: bool = False
    """Whether loss or gradient was not finite and the update was skipped: the weights are as before."""
    broken_rows: tuple[int, ...] = ()
    """If the loss is not finite: the rows, over all ranks, with a non-finite log-prob, ratio or weight."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are finite. DeepSpeed reports the norm of a non-finite gradient as -1."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm) and self.grad_norm >= 0

    def metrics(self, *, loss_normalizer: float, seconds: float) -> dict[str, Any]:
        """One step's line of metrics.jsonl; `loss_normalizer` is the number that the loss was divided by."""
        tokens = max(1.0, self.tokens)  # none where every row of the step was cut within its prompt
        line: dict[str, Any] = {
            "loss/objective": self.loss / loss_normalizer,
            "loss/nll": self.nll / tokens,
            "optim/grad_norm": self.grad_norm,
            "weight/mean": self.weight / tokens,
            "weight/ess_share": self.weight_ess_share,
            "perf/tokens_per_s": self.row_tokens / seconds,
            "perf/padding_share": 1 - self.row_tokens / self.computed_tokens if self.computed_tokens else 0.0,
            "tokens": int(self.row_tokens),
            "computed_tokens": int(self.computed_tokens),
            "response_tokens": int(self.tokens),
        }
        if self.has_router:
            line["loss/router"] = self.router_loss
        if self.has_bounds:
            line["weight/clipped_share"] = self.clipped / tokens
        return line | self._ratio_quantiles()

    @property
    def weight_ess_share(self) -> float | None:
        """Effective sample size of the token weights, as a share of the tokens; None without tokens or weights."""
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


EMPTY = Sums(
    loss=0, nll=0, weight=0, weight_squared=0, clipped=0, tokens=0, row_tokens=0, computed_tokens=0, grad_norm=0
)
"""Sums of a step without response tokens, in which nothing is computed."""

_ADDED = [field.name for field in fields(Sums)][:9]


class Adder:
    """Adds up micro-batches on the device, so that nothing waits for it, and reduces over ranks at the end."""

    def __init__(self, device: torch.device | str) -> None:
        self._sums = torch.zeros(len(_ADDED), dtype=torch.float64, device=device)
        self._counts = torch.zeros(_BINS, dtype=torch.float64, device=device)
        self._has_bounds = self._has_router = False

    def add(
        self, out: HeadOutput, *, row_tokens: int, computed_tokens: int, router_loss: torch.Tensor | None = None
    ) -> None:
        """Add one micro-batch: the head's output, its size, and its part of the router loss."""
        slopes_P = out.slopes_T.double()
        counts = torch.tensor([len(slopes_P), row_tokens, computed_tokens], dtype=torch.float64, device=slopes_P.device)
        balance = counts.new_zeros(1) if router_loss is None else router_loss.detach().double().reshape(1)
        parts = [
            out.loss.detach().double(),
            -out.logprobs_T.double().sum(),
            slopes_P.sum(),
            slopes_P.square().sum(),
            out.clipped_T.double().sum(),
        ]
        self._sums += torch.cat([torch.stack(parts), counts, balance])
        self._has_router |= router_loss is not None
        self._has_bounds |= len(out.clipped_T) > 0
        bins = (out.ratios_T.log() / _BIN_NATS).nan_to_num().round().clamp(
            -(_BINS // 2), _BINS // 2
        ).long() + _BINS // 2
        self._counts += torch.bincount(bins, minlength=_BINS)

    def total(self, ranks: int) -> Sums:
        """The sums over all ranks. Collective."""
        flags = self._sums.new_tensor([float(self._has_bounds), float(self._has_router)])
        together = torch.cat([self._sums, self._counts, flags])
        if ranks > 1:
            torch.distributed.all_reduce(together)
        values = together.tolist()
        counts = tuple(values[len(_ADDED) : -2])
        return Sums(
            **dict(zip(_ADDED, values[: len(_ADDED)], strict=True)),
            ratio_counts=counts if any(counts) else (),
            has_bounds=bool(values[-2]),
            has_router=bool(values[-1]),
        )
