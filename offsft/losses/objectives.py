"""Training objectives as functions of token log-probabilities.

`p` is a token's probability under the policy in training, `q` under the behaviour policy that wrote it, `p_ref` under
the policy before training; `sg` stops the gradient. Losses are sums over tokens; only the training step divides, once,
by the number of response tokens in the global batch. T = tokens; log-probs are in nats, float32.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from offsft.config.objective import Asft, Dft, Eaft, Idft, Is, IwSft, Kl, Objective, Power, Prift, Psft, Sft, Talr


@dataclass(frozen=True, slots=True)
class Tokens:
    """An objective's inputs per token, in addition to log p. Tensors are (T) and carry no gradient.

    Only the fields that the objective's settings require must be set.
    """

    weight_T: torch.Tensor
    """Factor on each token's loss: the weight of its row's source."""
    row_T: torch.Tensor
    """Number of the token's row in its micro-batch, from 0."""
    reference_T: torch.Tensor | None = None
    """log p_ref."""
    behavior_T: torch.Tensor | None = None
    """log q; 0 where unknown, so that p/q is p and importance sampling is DFT."""
    entropy_T: torch.Tensor | None = None
    """Entropy of the policy's distribution, nats; the head computes it."""
    most_entropy: float | None = None
    """The largest possible entropy, that of the uniform distribution; set where `entropy_T` is."""
    batch_loss: float | None = None
    """Median over the rows of the global batch of their mean -log p."""
    progress: float = 1.0
    """Share of all steps completed."""

    def part(self, tokens: slice) -> "Tokens":
        """A copy for some of the tokens."""
        return _map_tensors(self, lambda tensor: tensor[tokens])

    def to(self, device: torch.device | str) -> "Tokens":
        """The same tensors on a device."""
        return _map_tensors(self, lambda tensor: tensor.to(device))


class Losses(NamedTuple):
    """An objective's losses, differentiable in the log-probs, and the values for its metrics. All (T)."""

    loss_T: torch.Tensor
    ratio_T: torch.Tensor | None = None
    """Importance ratio before any clipping."""
    clipped_T: torch.Tensor | None = None
    """Whether a bound of the objective set the token's weight (bool)."""


def losses(settings: Objective, logprobs_T: torch.Tensor, tokens: Tokens) -> Losses:
    """The losses of a recipe's objective, without the weights of the sources.

    They do not include ASFT's divergence, a function of the whole distribution that `offsft.losses.fused_head` adds.
    """
    match settings:
        case Sft():
            return sft(logprobs_T)
        case Dft(frozen=True) | Prift():
            return prift(logprobs_T, _require(tokens.reference_T))
        case Dft() | Asft():
            return dft(logprobs_T)
        case Power(frozen=True):
            return frozen_power(logprobs_T, _require(tokens.reference_T), settings)
        case Power():
            return power(logprobs_T, settings)
        case Is():
            return importance(logprobs_T, _require(tokens.behavior_T), settings)
        case IwSft():
            return iw_sft(logprobs_T, _require(tokens.reference_T), tokens.row_T, settings)
        case Psft():
            return psft(logprobs_T, _require(tokens.reference_T), settings)
        case Kl():
            return kl(logprobs_T, _require(tokens.reference_T), settings)
        case Idft():
            return idft(logprobs_T, _require(tokens.entropy_T), tokens.progress, settings)
        case Eaft():
            most = settings.most_entropy or tokens.most_entropy
            assert most is not None, "the head knows its words"
            return eaft(logprobs_T, _require(tokens.entropy_T), most, settings)
        case Talr():
            assert tokens.batch_loss is not None
            weighing_T = _require(tokens.reference_T) if settings.frozen else logprobs_T.detach()
            return talr(logprobs_T, weighing_T, tokens.batch_loss, settings)


def sft(logprobs_T: torch.Tensor) -> Losses:
    """-log p: plain maximum likelihood."""
    return Losses(-logprobs_T)


def dft(logprobs_T: torch.Tensor) -> Losses:
    """-sg(p) log p (arXiv 2508.05629). Its gradient is that of -p."""
    return Losses(-logprobs_T.detach().exp() * logprobs_T)


def prift(logprobs_T: torch.Tensor, reference_T: torch.Tensor) -> Losses:
    """-sg(p_ref) log p (arXiv 2606.09396): DFT with the weights of the policy before training."""
    return Losses(-_exp(reference_T) * logprobs_T)


def frozen_power(logprobs_T: torch.Tensor, reference_T: torch.Tensor, settings: Power) -> Losses:
    """-sg(p_ref^a) log p: `power` with its weights on -log p taken from the policy before training."""
    return Losses(-_exp(settings.exponent * reference_T) * logprobs_T)


def power(logprobs_T: torch.Tensor, settings: Power) -> Losses:
    """(1 - p^a) / a (arXiv 2510.00526): DFT's gradient for a = 1, SFT's for a -> 0."""
    return Losses(-torch.expm1(settings.exponent * logprobs_T) / settings.exponent)


def importance(logprobs_T: torch.Tensor, behavior_T: torch.Tensor, settings: Is) -> Losses:
    """-sg(min(p/q, cap)) log p: importance sampling by the behaviour policy that actually wrote each token.

    Self rows were sampled on the plain prompt, guided rows with the expert solution in view. Expert rows have no q,
    and their ratio is p (arXiv 2509.15157, 2508.05629).
    """
    ratio_T = _exp(logprobs_T.detach() - behavior_T)
    return Losses(-ratio_T.clamp(max=settings.cap) * logprobs_T, ratio_T, ratio_T > settings.cap)


def iw_sft(logprobs_T: torch.Tensor, reference_T: torch.Tensor, row_T: torch.Tensor, settings: IwSft) -> Losses:
    """-sg(w) log p, w = min(exp(tau mean(log p - log p_ref)), cap), with the mean over the row (arXiv 2507.12856)."""
    rows = int(row_T.max()) + 1 if len(row_T) else 0
    ratios_R = logprobs_T.new_zeros(rows).index_add_(0, row_T, logprobs_T.detach() - reference_T)
    ratio_T = _exp(settings.tau * ratios_R / torch.bincount(row_T, minlength=rows))[row_T]
    return Losses(-ratio_T.clamp(max=settings.cap) * logprobs_T, ratio_T, ratio_T > settings.cap)


def psft(logprobs_T: torch.Tensor, reference_T: torch.Tensor, settings: Psft) -> Losses:
    """-min(r, clip(r, 1 - low, 1 + high)), r = p/p_ref: PPO's clipped surrogate, advantage 1 (arXiv 2508.17784).

    With that advantage the lower bound never applies, whatever `low` is, so it is not a setting.
    """
    ratio_T = _exp(logprobs_T - reference_T)
    most = 1 + settings.high
    return Losses(-ratio_T.clamp(max=most), ratio_T.detach(), ratio_T.detach() > most)


def kl(logprobs_T: torch.Tensor, reference_T: torch.Tensor, settings: Kl) -> Losses:
    """-log p + b k3, k3 = p_ref/p - 1 - log(p_ref/p): the penalty that arXiv 2509.15157 names as the usual remedy.

    Beyond 20 nats the exponential continues as its tangent, so that one token cannot make the step's gradient infinite.
    """
    apart_T = reference_T - logprobs_T
    beyond_T = (apart_T - _K3_NATS).clamp(min=0) * math.exp(_K3_NATS)
    k3_T = torch.expm1(apart_T.clamp(max=_K3_NATS)) + beyond_T - apart_T
    return Losses(-logprobs_T + settings.coefficient * k3_T, _exp(-apart_T.detach()))


def idft(logprobs_T: torch.Tensor, entropy_T: torch.Tensor, progress: float, settings: Idft) -> Losses:
    """-p^sg(g) log p, g = clip(exp(-(log p + H) / beta), min, max), H the policy's entropy (arXiv 2602.12222).

    log p + H is 0 on average for tokens that the policy samples itself, and far below for tokens it would not write.
    The exponent is 1 for the share `warmup` of all steps and moves to g over the share `ramp` after it.
    """
    detached_T = logprobs_T.detach()
    exponent_T = _exp(-(detached_T + entropy_T) / settings.beta)
    bounded_T = exponent_T.clamp(settings.exponent_min, settings.exponent_max)
    moved_T = 1 + _ramp(progress, settings) * (bounded_T - 1)
    weighing_T = logprobs_T if settings.weight_gradient else detached_T
    return Losses(-(moved_T * weighing_T).exp() * logprobs_T, clipped_T=bounded_T != exponent_T)


def _ramp(progress: float, settings: Idft) -> float:
    """The fraction of the way from 1 to g that the exponent has moved."""
    if progress < settings.warmup:
        return 0.0
    return min(1.0, (progress - settings.warmup) / settings.ramp) if settings.ramp else 1.0


def eaft(logprobs_T: torch.Tensor, entropy_T: torch.Tensor, most: float, settings: Eaft) -> Losses:
    """-sg(min(H / H_max, 1)^a) log p, H the policy's entropy (arXiv 2601.02151).

    Tokens that contradict a confident policy count least.
    """
    share_T = (entropy_T / most).clamp(0, 1)
    return Losses(-(share_T**settings.exponent) * logprobs_T, clipped_T=entropy_T > most)


def talr(logprobs_T: torch.Tensor, weighing_T: torch.Tensor, batch_loss: float, settings: Talr) -> Losses:
    """-sg(max(p^(1/tau), floor)) log p, tau the median of the batch's rows' mean -log p (arXiv 2509.20758).

    `weighing_T` and `batch_loss` are of the policy in training, or with frozen weights of the policy before training.

    The batch is the global one, so that tau does not depend on its split over ranks and micro-batches.
    """
    weight_T = _exp(weighing_T / max(batch_loss, _SMALLEST_TAU))
    return Losses(-weight_T.clamp(min=settings.floor) * logprobs_T, clipped_T=weight_T < settings.floor)


_SMALLEST_TAU = 1e-6
"""Lower bound on tau: a batch that the policy has memorised has a median loss of 0."""


_MOST_NATS = 80.0
"""The largest exponent: e^80 is finite in float32, e^89 is not, and every bound on a ratio is far below."""

_K3_NATS = 20.0


def _exp(log_T: torch.Tensor) -> torch.Tensor:
    """The exponential with its argument bounded first.

    Clamping an infinity afterwards would give NaN gradients: the clamp's slope there is 0, times infinity.
    """
    return log_T.clamp(max=_MOST_NATS).exp()


def _require(tensor_T: torch.Tensor | None) -> torch.Tensor:
    assert tensor_T is not None, "the objective's settings say that it needs this"
    return tensor_T


def _map_tensors(tokens: Tokens, function) -> Tokens:
    values = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    return Tokens(**{name: function(v) if isinstance(v, torch.Tensor) else v for name, v in values.items()})
