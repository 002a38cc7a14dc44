"""Training objectives as functions of token log-probabilities.

`p` is the probability that the policy in training gives a token, `sg` stops the gradient. Losses are sums over
tokens; only the training step divides, once, by the number of response tokens in the global batch.
"""

from collections.abc import Callable

import torch

from offsft.objective_config import Dft, Objective, Sft

TokenLoss = Callable[[torch.Tensor], torch.Tensor]
"""Log-probs (nats, float32, T) to losses (T), differentiable."""


def sft(logprobs_T: torch.Tensor) -> torch.Tensor:
    """-log p: plain maximum likelihood."""
    return -logprobs_T


def dft(logprobs_T: torch.Tensor) -> torch.Tensor:
    """-sg(p) log p (arXiv 2508.05629). Its gradient is that of -p."""
    return -logprobs_T.detach().exp() * logprobs_T


def token_loss(settings: Objective) -> TokenLoss:
    """The loss that a recipe names."""
    match settings:
        case Sft():
            return sft
        case Dft():
            return dft


def token_weights(settings: Objective, logprobs_T: torch.Tensor) -> torch.Tensor:
    """The weight on each token's -log p: loss and gradient of the objective are those of maximum likelihood times it."""
    match settings:
        case Sft():
            return torch.ones_like(logprobs_T)
        case Dft():
            return logprobs_T.exp()
