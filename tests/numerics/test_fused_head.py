"""The fused head against a readable float64 reference: values and gradients."""

import pytest
import torch

from offsft.fused_head import fused_head
from offsft.objective_config import Dft, Sft
from offsft.objectives import token_loss, token_weights


def reference(hidden, weight, targets, kind):
    """Full logits in float64, autograd for everything."""
    hidden = hidden.detach().double().requires_grad_()
    weight = weight.detach().double().requires_grad_()
    logprobs = torch.log_softmax(hidden @ weight.T, dim=1)[torch.arange(len(targets)), targets]
    weights = logprobs.detach().exp() if kind == "dft" else 1.0
    loss = -(weights * logprobs).sum()
    loss.backward()
    return loss.detach(), logprobs.detach(), hidden.grad, weight.grad


def draw(tokens, dim=24, words=101, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(tokens)
    hidden = (scale * torch.randn(tokens, dim, generator=generator)).to(dtype).requires_grad_()
    weight = torch.randn(words, dim, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(words, (tokens,), generator=generator)


@pytest.mark.parametrize("objective", [Sft(), Dft()], ids=lambda o: o.kind)
@pytest.mark.parametrize(("tokens", "chunk"), [(37, 8), (37, 37), (37, 512), (1, 4), (64, 16)])
def test_values_and_gradients(objective, tokens, chunk):
    hidden, weight, targets = draw(tokens)
    loss, logprobs = fused_head(hidden, weight, targets, token_loss(objective), chunk_tokens=chunk)
    (3.0 * loss).backward()
    want_loss, want_logprobs, want_hidden, want_weight = reference(hidden, weight, targets, objective.kind)
    torch.testing.assert_close(loss.double(), want_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logprobs.double(), want_logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad.double(), 3 * want_hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight.grad.double(), 3 * want_weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", [Sft(), Dft()], ids=lambda o: o.kind)
def test_extreme_logits_stay_finite_and_right(objective):
    hidden, weight, targets = draw(20, scale=60.0)
    loss, _ = fused_head(hidden, weight, targets, token_loss(objective), chunk_tokens=7)
    loss.backward()
    want_loss, _, want_hidden, _ = reference(hidden, weight, targets, objective.kind)
    torch.testing.assert_close(loss.double(), want_loss, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden.grad.double(), want_hidden, rtol=1e-3, atol=1e-3)


def test_bfloat16_weights_are_computed_in_float32():
    hidden, weight, targets = draw(33, dtype=torch.bfloat16)
    loss, logprobs = fused_head(hidden, weight, targets, token_loss(Dft()), chunk_tokens=10)
    loss.backward()
    want_loss, want_logprobs, want_hidden, _ = reference(hidden, weight, targets, "dft")
    assert loss.dtype == logprobs.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss.double(), want_loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logprobs.double(), want_logprobs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(hidden.grad.double(), want_hidden, rtol=1e-2, atol=1e-2)


def test_no_tokens_still_reach_hidden_and_weight():
    hidden, weight, targets = draw(0)
    loss, logprobs = fused_head(hidden, weight, targets, token_loss(Dft()))
    loss.backward()
    assert loss.item() == 0.0
    assert logprobs.shape == (0,)
    assert hidden.grad.shape == (0, 24)
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, targets = draw(9)
    weight = weight.detach()
    loss, _ = fused_head(hidden, weight, targets, token_loss(Sft()))
    loss.backward()
    assert weight.grad is None
    assert hidden.grad.abs().sum() > 0


def test_the_gradient_of_dft_is_that_of_minus_p():
    logprobs = torch.linspace(-9, -0.01, 23, dtype=torch.float64, requires_grad=True)
    (of_dft,) = torch.autograd.grad(token_loss(Dft())(logprobs).sum(), logprobs)
    (of_minus_p,) = torch.autograd.grad(-logprobs.exp().sum(), logprobs)
    torch.testing.assert_close(of_dft, of_minus_p)


def test_the_weight_times_likelihood_is_the_loss():
    logprobs = -torch.rand(11) * 5
    for objective in (Sft(), Dft()):
        torch.testing.assert_close(token_loss(objective)(logprobs), -token_weights(objective, logprobs) * logprobs)
