"""Exponents are bounded before the exponential: losses and gradients stay finite for any two policies."""

import math

import pytest
import torch

from offsft.config.objective import Dft, Eaft, Idft, Is, IwSft, Kl, Power, Prift, Psft, Sft, Talr
from offsft.losses.fused_head import fused_head
from offsft.losses.objectives import Tokens, losses

LOGPROBS = [-1e-7, -1.0, -90.0, -1e4]
"""From tokens that the policy is sure of to those that it considers impossible."""
APART = [-1e4, -120.0, -89.0, -20.0, 0.0, 20.0, 89.0, 120.0, 1e4]
"""log p minus log p_ref, or minus log q, in nats; e^89 overflows float32."""

every_objective = pytest.mark.parametrize(
    "objective",
    [
        Sft(),
        Dft(),
        Power(exponent=10),
        Is(),
        Is(cap=1e30),
        IwSft(tau=50),
        Psft(),
        Kl(),
        Idft(beta=1e-3),
        Talr(floor=0),
        Eaft(exponent=9),
        Prift(),
        Talr(frozen=True),
    ],
    ids=str,
)


def tokens_of(logprobs, apart):
    count = len(logprobs)
    return Tokens(
        weight_T=torch.ones(count),
        row_T=torch.arange(count),
        reference_T=logprobs.detach() - apart,
        behavior_T=logprobs.detach() - apart,
        most_entropy=4.0,
        entropy_T=torch.linspace(0, 12, count),
        batch_loss=1e-9,
    )


@every_objective
@pytest.mark.parametrize("apart", APART)
def test_losses_and_gradients_are_finite(objective, apart):
    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    found = losses(objective, logprobs, tokens_of(logprobs, apart))
    (gradient,) = torch.autograd.grad(found.loss_T.sum(), logprobs)
    assert found.loss_T.isfinite().all()
    assert gradient.isfinite().all()
    assert found.ratio_T is None or found.ratio_T.isfinite().all()


def test_far_above_the_reference_psft_has_no_gradient_left():
    logprobs = torch.tensor([-1.0], requires_grad=True)
    found = losses(Psft(high=0.28), logprobs, tokens_of(logprobs, 119.0))
    (gradient,) = torch.autograd.grad(found.loss_T.sum(), logprobs)
    assert found.loss_T.tolist() == pytest.approx([-1.28])
    assert gradient.tolist() == [0.0]
    assert found.clipped_T.tolist() == [True]


def test_a_bounded_ratio_counts_as_its_cap():
    logprobs = torch.tensor([-1.0])
    for objective, cap in ((Is(cap=2.0), 2.0), (IwSft(cap=16.0), 16.0)):
        found = losses(objective, logprobs, tokens_of(logprobs, 1e4))
        assert found.loss_T.tolist() == [cap]
        assert found.clipped_T.tolist() == [True]


def test_k3_goes_on_as_its_tangent_and_never_falls():
    """Far below the reference the pull grows with the distance, but never beyond what a step can take."""
    pulls = []
    for apart in (-5.0, -19.9, -20.1, -200.0):
        logprobs = torch.tensor([-1.0], requires_grad=True)
        found = losses(Kl(coefficient=1.0), logprobs, tokens_of(logprobs, apart))
        (gradient,) = torch.autograd.grad(found.loss_T.sum(), logprobs)
        pulls.append(-gradient.item())
        if apart > -20:
            assert found.loss_T.item() == pytest.approx(1 + math.expm1(-apart) + apart, rel=1e-5)
    assert pulls == sorted(pulls)
    assert pulls[2] == pytest.approx(math.exp(20), rel=1e-5) == pulls[3]


@every_objective
def test_the_fused_head_passes_finite_gradients_on(objective):
    draw = torch.Generator().manual_seed(0)
    hidden = (30 * torch.randn(9, 16, generator=draw)).requires_grad_()
    weight = torch.randn(50, 16, generator=draw).requires_grad_()
    known = tokens_of(torch.full((9,), -1.0), torch.linspace(-1e4, 1e4, 9))
    fused_head(hidden, weight, torch.arange(9), objective, known, chunk_tokens=4).loss.backward()
    assert hidden.grad.isfinite().all()
    assert weight.grad.isfinite().all()
