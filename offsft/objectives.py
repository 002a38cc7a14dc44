"""Training objectives as functions of token log-probabilities.

`p` is the probability that the policy in training gives a token, `q` what the behaviour policy that wrote it gave,
`p_ref` what the policy gave before training; `sg` stops the gradient. Losses are sums over tokens; only the training
step divides, once, by the number of response tokens in the global batch. T = tokens; log-probs are in nats, float32.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch

from offsft.config.objective import Asft, Dft, Idft, Is, IwSft, Kl, Objective, Power, Psft, Sft, Talr


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an objective may know of each token beside log p. Tensors are (T) and carry no gradient.

    Only what the objective's settings say it needs has to be there.
    """

    weight_T: torch.Tensor
    """Factor on each token's loss: the weight of its row's source."""
    row_T: torch.Tensor
    """Number of the token's row in its micro-batch, from 0."""
    reference_T: torch.Tensor | None = None
    """log p_ref."""
    behavior_T: torch.Tensor | None = None
    """log q; 0 where there is none, so that p/q is p and importance sampling is DFT."""
    entropy_T: torch.Tensor | None = None
    """Entropy of the policy's distribution, nats; the head computes it."""
    batch_loss: float | None = None
    """Median over the rows of the global batch of their mean -log p."""

    def part(self, tokens: slice) -> "Tokens":
        """The same for some of the tokens."""
        return _mapped(self, lambda tensor: tensor[tokens])

    def to(self, device: torch.device | str) -> "Tokens":
        """The same tensors on a device."""
        return _mapped(self, lambda tensor: tensor.to(device))


class Losses(NamedTuple):
    """An objective's losses, differentiable in the log-probs, and what its metrics show. All (T)."""

    loss_T: torch.Tensor
    ratio_T: torch.Tensor | None = None
    """Importance ratio before any clipping."""
    clipped_T: torch.Tensor | None = None
    """Whether a bound of the objective decided the token's weight (bool)."""


def losses(settings: Objective, logprobs_T: torch.Tensor, tokens: Tokens) -> Losses:
    """The losses that a recipe's objective gives, without the weights of the sources.

    ASFT's divergence is not among them: it is a function of the whole distribution, and `offsft.fused_head` adds it.
    """
    match settings:
        case Sft():
            return sft(logprobs_T)
        case Dft() | Asft():
            return dft(logprobs_T)
        case Power():
            return power(logprobs_T, settings)
        case Is():
            return importance(logprobs_T, _given(tokens.behavior_T), settings)
        case IwSft():
            return iw_sft(logprobs_T, _given(tokens.reference_T), tokens.row_T, settings)
        case Psft():
            return psft(logprobs_T, _given(tokens.reference_T), settings)
        case Kl():
            return kl(logprobs_T, _given(tokens.reference_T), settings)
        case Idft():
            return idft(logprobs_T, _given(tokens.entropy_T), settings)
        case Talr():
            assert tokens.batch_loss is not None
            return talr(logprobs_T, tokens.batch_loss, settings)


def sft(logprobs_T: torch.Tensor) -> Losses:
    """-log p: plain maximum likelihood."""
    return Losses(-logprobs_T)


def dft(logprobs_T: torch.Tensor) -> Losses:
    """-sg(p) log p (arXiv 2508.05629). Its gradient is that of -p."""
    return Losses(-logprobs_T.detach().exp() * logprobs_T)


def power(logprobs_T: torch.Tensor, settings: Power) -> Losses:
    """(1 - p^a) / a (arXiv 2510.00526): for a = 1 DFT's gradient, for a to 0 that of SFT."""
    return Losses(-torch.expm1(settings.exponent * logprobs_T) / settings.exponent)


def importance(logprobs_T: torch.Tensor, behavior_T: torch.Tensor, settings: Is) -> Losses:
    """-sg(min(p/q, cap)) log p: importance sampling by the behaviour that really wrote each token.

    Self rows were sampled on the plain prompt, guided rows with the expert solution in view; expert rows have no q,
    and their ratio is p (arXiv 2509.15157, 2508.05629).
    """
    ratio_T = (logprobs_T.detach() - behavior_T).exp()
    return Losses(-ratio_T.clamp(max=settings.cap) * logprobs_T, ratio_T, ratio_T > settings.cap)


def iw_sft(logprobs_T: torch.Tensor, reference_T: torch.Tensor, row_T: torch.Tensor, settings: IwSft) -> Losses:
    """-sg(w) log p, w = min(exp(tau mean(log p - log p_ref)), cap), the mean over the row (arXiv 2507.12856)."""
    rows = int(row_T.max()) + 1 if len(row_T) else 0
    ratios_R = logprobs_T.new_zeros(rows).index_add_(0, row_T, logprobs_T.detach() - reference_T)
    ratio_T = (settings.tau * ratios_R / torch.bincount(row_T, minlength=rows)).exp()[row_T]
    return Losses(-ratio_T.clamp(max=settings.cap) * logprobs_T, ratio_T, ratio_T > settings.cap)


def psft(logprobs_T: torch.Tensor, reference_T: torch.Tensor, settings: Psft) -> Losses:
    """-min(r, clip(r, 1 - low, 1 + high)), r = p/p_ref: PPO's clipped surrogate, advantage 1 (arXiv 2508.17784).

    With that advantage the lower bound never acts, whatever `low` is, so it is not a setting.
    """
    ratio_T = (logprobs_T - reference_T).exp()
    most = 1 + settings.high
    return Losses(-ratio_T.clamp(max=most), ratio_T.detach(), ratio_T.detach() > most)


def kl(logprobs_T: torch.Tensor, reference_T: torch.Tensor, settings: Kl) -> Losses:
    """-log p + b k3, k3 = p_ref/p - 1 - log(p_ref/p): the penalty that arXiv 2509.15157 names as the usual remedy."""
    apart_T = reference_T - logprobs_T
    return Losses(-logprobs_T + settings.coefficient * (torch.expm1(apart_T) - apart_T), (-apart_T.detach()).exp())


def idft(logprobs_T: torch.Tensor, entropy_T: torch.Tensor, settings: Idft) -> Losses:
    """-sg(p^g) log p, g = clip(exp(-(log p + H) / beta), min, max), H the policy's entropy (arXiv 2602.12222).

    log p + H is 0 on average for what the policy writes itself, and far below for what it would not write.
    """
    detached_T = logprobs_T.detach()
    exponent_T = (-(detached_T + entropy_T) / settings.beta).exp()
    bounded_T = exponent_T.clamp(settings.exponent_min, settings.exponent_max)
    return Losses(-(bounded_T * detached_T).exp() * logprobs_T, clipped_T=bounded_T != exponent_T)


def talr(logprobs_T: torch.Tensor, batch_loss: float, settings: Talr) -> Losses:
    """-sg(max(p^(1/tau), floor)) log p, tau the median of the batch's rows' mean -log p (arXiv 2509.20758).

    The batch is the global one, so that tau does not depend on how it is divided over ranks and micro-batches.
    """
    weight_T = (logprobs_T.detach() / max(batch_loss, _SMALLEST_TAU)).exp()
    return Losses(-weight_T.clamp(min=settings.floor) * logprobs_T, clipped_T=weight_T < settings.floor)


_SMALLEST_TAU = 1e-6
"""A batch that the policy knows by heart has a median loss of 0."""


def _given(tensor_T: torch.Tensor | None) -> torch.Tensor:
    assert tensor_T is not None, "the objective's settings say that it needs this"
    return tensor_T


def _mapped(tokens: Tokens, function) -> Tokens:
    values = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    return Tokens(**{name: function(v) if isinstance(v, torch.Tensor) else v for name, v in values.items()})
