"""The fused head against a readable float64 reference: values and gradients of every objective."""

import math

import pytest
import torch

from offsft.config.objective import Asft, Dft, Eaft, Idft, Is, IwSft, Kl, Power, Prift, Psft, Sft, Talr
from offsft.losses import logits as module
from offsft.losses.fused_head import Anchor, fused_head, token_logprobs
from offsft.losses.logits import LogitTransform
from offsft.losses.objectives import Tokens, losses
from tests.numerics.reference import reference_loss

EVERY = [
    Sft(),
    Dft(),
    Power(exponent=0.4),
    Is(),
    IwSft(cap=1.1),
    Psft(),
    Kl(),
    Asft(coefficient=0.3),
    Idft(),
    Idft(warmup=0, ramp=0, weight_gradient=False),
    Talr(floor=0.3),
    Eaft(),
    Eaft(exponent=2, most_entropy=0.5),
    Prift(),
    Dft(frozen=True),
    Power(exponent=0.4, frozen=True),
    Talr(floor=0.3, frozen=True),
]
DIM, WORDS = 24, 101

each_objective = pytest.mark.parametrize("objective", EVERY, ids=str)


class Case:
    """Random hidden states, head, targets and all other inputs that an objective may need."""

    def __init__(self, tokens, *, scale=1.0, dtype=torch.float32, objective=None):
        draw = torch.Generator().manual_seed(tokens)
        self.hidden = (scale * torch.randn(tokens, DIM, generator=draw)).to(dtype).requires_grad_()
        self.weight = torch.randn(WORDS, DIM, generator=draw).to(dtype).requires_grad_()
        self.targets = torch.randint(WORDS, (tokens,), generator=draw)
        now = token_logprobs(self.hidden, self.weight, self.targets)
        self.tokens = Tokens(
            weight_T=torch.tensor([1.0, 0.5, 2.0])[torch.randint(3, (tokens,), generator=draw)],
            row_T=torch.arange(tokens) * 5 // max(1, tokens),
            reference_T=(now + 0.3 * torch.randn(tokens, generator=draw)).clamp(max=0),
            # As in a mixture: some rows sampled near the policy, some without behaviour log-probs.
            behavior_T=torch.where(
                torch.arange(tokens) % 3 == 0, 0.0, (now - torch.randn(tokens, generator=draw)).clamp(max=0)
            ),
            batch_loss=float(-now.median()) if tokens else 1.0,
        )
        old_hidden = self.hidden.detach() + 0.2 * torch.randn(tokens, DIM, generator=draw).to(dtype)
        old_weight = self.weight.detach() + 0.2 * torch.randn(WORDS, DIM, generator=draw).to(dtype)
        self.anchor = None
        if objective is not None and objective.needs_anchor:
            self.anchor = Anchor(old_hidden, old_weight, objective.coefficient)

    def run(self, objective, **options):
        out = fused_head(self.hidden, self.weight, self.targets, objective, self.tokens, anchor=self.anchor, **options)
        out.loss.backward()
        return out

    def expect(self, objective, transform=lambda logits: logits):
        """Loss, and its gradients with respect to hidden states and head, in float64."""
        hidden, weight = (t.detach().double().requires_grad_() for t in (self.hidden, self.weight))
        reference = None
        if self.anchor:
            reference = transform(self.anchor.hidden_TD.double() @ self.anchor.weight_VD.double().T)
        loss = reference_loss(objective, transform(hidden @ weight.T), self.targets, self.tokens, reference)
        loss.backward()
        return loss.detach(), hidden.grad, weight.grad


@each_objective
@pytest.mark.parametrize(("tokens", "chunk"), [(37, 8), (37, 37), (37, 512), (1, 4), (64, 16), (50, None)])
def test_values_and_gradients(objective, tokens, chunk):
    case = Case(tokens, objective=objective)
    out = case.run(objective, chunk_tokens=chunk)
    want_loss, want_hidden, want_weight = case.expect(objective)
    torch.testing.assert_close(out.loss.double(), want_loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(case.hidden.grad.double(), want_hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(case.weight.grad.double(), want_weight, rtol=1e-4, atol=1e-5)


@each_objective
def test_extreme_logits_stay_finite_and_right(objective):
    case = Case(20, scale=25.0, objective=objective)  # log-probs down to -400, whose exponentials underflow float32
    out = case.run(objective, chunk_tokens=7)
    want_loss, want_hidden, _ = case.expect(objective)
    torch.testing.assert_close(out.loss.double(), want_loss, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(case.hidden.grad.double(), want_hidden, rtol=1e-3, atol=1e-3)


@each_objective
@pytest.mark.parametrize("capped", [None, 5.0])
def test_scaled_and_capped_logits(objective, capped):
    case = Case(23, objective=objective)

    def transform(logits):
        return 0.3 * logits if capped is None else capped * torch.tanh(0.3 * logits / capped)

    case.run(objective, chunk_tokens=6, transform=LogitTransform(scale=0.3, cap=capped))
    _, want_hidden, want_weight = case.expect(objective, transform)
    torch.testing.assert_close(case.hidden.grad.double(), want_hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(case.weight.grad.double(), want_weight, rtol=1e-4, atol=1e-5)


@each_objective
def test_bfloat16_weights_are_computed_in_float32(objective, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_WORDS", 40)
    case = Case(33, dtype=torch.bfloat16, objective=objective)
    out = case.run(objective, chunk_tokens=10)
    want_loss, want_hidden, want_weight = case.expect(objective)
    assert out.loss.dtype == out.logprobs_T.dtype == torch.float32
    assert case.hidden.grad.dtype == case.weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(out.loss.double(), want_loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(case.hidden.grad.double(), want_hidden, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(case.weight.grad.double(), want_weight, rtol=1e-2, atol=1e-2)


@each_objective
def test_no_tokens_still_reach_hidden_and_weight(objective):
    case = Case(0, objective=objective)
    out = case.run(objective)
    assert out.loss.item() == 0.0
    assert out.logprobs_T.shape == (0,)
    assert case.hidden.grad.shape == (0, DIM)
    assert torch.equal(case.weight.grad, torch.zeros_like(case.weight))


@each_objective
def test_tokens_of_weight_0_teach_nothing(objective):
    case = Case(30, objective=objective)
    case.tokens.weight_T.zero_()
    assert case.run(objective, chunk_tokens=8).loss.item() == 0.0
    assert not case.hidden.grad.any()
    assert not case.weight.grad.any()


@each_objective
def test_a_frozen_head_gets_no_gradient(objective):
    case = Case(9, objective=objective)
    case.weight = case.weight.detach()
    case.run(objective)
    _, want_hidden, _ = case.expect(objective)
    assert case.weight.grad is None
    torch.testing.assert_close(case.hidden.grad.double(), want_hidden, rtol=1e-4, atol=1e-5)


@each_objective
def test_what_comes_from_upstream_scales_the_gradients(objective):
    once, thrice = Case(12, objective=objective), Case(12, objective=objective)
    once.run(objective)
    out = fused_head(thrice.hidden, thrice.weight, thrice.targets, objective, thrice.tokens, anchor=thrice.anchor)
    (3.0 * out.loss).backward()
    torch.testing.assert_close(thrice.hidden.grad, 3 * once.hidden.grad)
    torch.testing.assert_close(thrice.weight.grad, 3 * once.weight.grad)


@each_objective
def test_what_the_head_reports_of_each_token(objective):
    case = Case(31, objective=objective)
    out = case.run(objective, chunk_tokens=9)
    logprobs = (case.hidden.double() @ case.weight.double().T).log_softmax(1)[torch.arange(31), case.targets].detach()
    torch.testing.assert_close(out.logprobs_T.double(), logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        token_logprobs(case.hidden, case.weight, case.targets, chunk_tokens=4), out.logprobs_T, rtol=1e-5, atol=1e-6
    )
    leaf = logprobs.float().requires_grad_()
    if not objective.needs_entropy:
        losses(objective, leaf, case.tokens).loss_T.sum().backward()
        torch.testing.assert_close(out.slopes_T, -leaf.grad, rtol=1e-4, atol=1e-5)
    assert out.ratios_T.shape == ((31,) if objective.kind in {"is", "iw_sft", "psft", "kl"} else (0,))
    assert out.clipped_T.shape == (
        (31,) if objective.kind in {"is", "iw_sft", "psft", "idft", "talr", "eaft"} else (0,)
    )


def test_the_bounds_act_on_some_tokens_and_not_on_others():
    """Otherwise the tests above would not cover one side."""
    for objective in (Is(), IwSft(cap=1.1), Psft(), Idft(), Talr(floor=0.3), Eaft(most_entropy=0.5)):
        clipped = Case(64, objective=objective).run(objective).clipped_T
        assert 0 < clipped.mean() < 1, objective.kind


def test_the_gradient_of_dft_is_that_of_minus_p():
    logprobs = torch.linspace(-9, -0.01, 23, dtype=torch.float64, requires_grad=True)
    nothing = Tokens(torch.ones(23), torch.zeros(23, dtype=torch.long))
    (of_dft,) = torch.autograd.grad(losses(Dft(), logprobs, nothing).loss_T.sum(), logprobs)
    (of_power,) = torch.autograd.grad(losses(Power(exponent=1.0), logprobs, nothing).loss_T.sum(), logprobs)
    (of_minus_p,) = torch.autograd.grad(-logprobs.exp().sum(), logprobs)
    torch.testing.assert_close(of_dft, of_minus_p)
    torch.testing.assert_close(of_power, of_minus_p)


def test_a_small_exponent_is_nearly_sft():
    nothing = Tokens(torch.ones(40), torch.zeros(40, dtype=torch.long))
    logprobs = torch.linspace(-9, -0.01, 40)
    torch.testing.assert_close(losses(Power(exponent=1e-5), logprobs, nothing).loss_T, -logprobs, rtol=1e-4, atol=0)


def test_importance_without_behaviour_is_dft():
    case = Case(40)
    unknown = Tokens(case.tokens.weight_T, case.tokens.row_T, behavior_T=torch.zeros(40))
    logprobs = -3 * torch.rand(40)
    got = losses(Is(cap=1.0), logprobs, unknown).loss_T
    torch.testing.assert_close(got, losses(Dft(), logprobs, unknown).loss_T)


def test_before_the_first_step_the_ratios_to_the_reference_are_1():
    case = Case(40)
    now = token_logprobs(case.hidden, case.weight, case.targets)
    tokens = Tokens(case.tokens.weight_T, case.tokens.row_T, reference_T=now)
    for objective in (IwSft(), Psft(), Kl()):
        out = fused_head(case.hidden, case.weight, case.targets, objective, tokens)
        torch.testing.assert_close(out.ratios_T, torch.ones(40))
        torch.testing.assert_close(out.slopes_T, torch.ones(40), rtol=1e-4, atol=1e-4)


def test_prift_is_frozen_dft():
    case = Case(40)
    logprobs = -3 * torch.rand(40)
    got = losses(Prift(), logprobs, case.tokens).loss_T
    torch.testing.assert_close(got, losses(Dft(frozen=True), logprobs, case.tokens).loss_T, rtol=0, atol=0)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0), (0.19, 0), (0.25, 0.5), (0.3, 1), (1.0, 1)])
def test_idfts_exponent_is_held_at_1_and_then_moves_to_its_own(progress, share):
    logprobs, entropy = torch.tensor([-4.0]), torch.tensor([2.0])
    tokens = Tokens(torch.ones(1), torch.zeros(1, dtype=torch.long), entropy_T=entropy, progress=progress)
    exponent = 1 + share * (2.0 - 1)  # exp(2) is above the largest, which is 2
    want = math.exp(-4.0 * exponent) * 4.0
    assert losses(Idft(), logprobs, tokens).loss_T.item() == pytest.approx(want, rel=1e-5)


@each_objective
@pytest.mark.parametrize("tokens", [1, 23])
def test_split_products_of_a_bfloat16_head_are_those_of_float32(objective, tokens):
    """Log-probs are exact products summed in another way; gradients end in bfloat16, whose last digit may differ."""
    found = {}
    for split in (False, True):
        case = Case(tokens, dtype=torch.bfloat16, objective=objective)
        out = fused_head(
            case.hidden,
            case.weight,
            case.targets,
            objective,
            case.tokens,
            anchor=case.anchor,
            chunk_tokens=5,
            split=split,
        )
        out.loss.backward()
        found[split] = out, case.hidden.grad.float(), case.weight.grad.float()
    (want, *want_gradients), (got, *got_gradients) = found[False], found[True]
    torch.testing.assert_close(got.logprobs_T, want.logprobs_T, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(got.loss, want.loss, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(got_gradients, want_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2**-7, atol=1e-4 * float(theirs.abs().max()))


def test_the_split_of_a_derivative_keeps_sixteen_binary_digits():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    high, low = module.split_halves(values, torch.bfloat16)
    assert high.dtype == low.dtype == torch.bfloat16
    assert ((high.float() + low.float() - values).abs() <= 2**-16 * values.abs()).all()
    assert ((high.float() - values).abs() > 2**-12 * values.abs()).any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_products_of_halves_are_summed_in_float32():
    left, right = (torch.randn(64, 64, device="cuda").bfloat16() for _ in range(2))
    want = (left.double() @ right.double()).float()
    torch.testing.assert_close(module.multiply_halves(left, right), want, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        module.multiply_halves(left.T, right), (left.T.double() @ right.double()).float(), rtol=1e-5, atol=1e-4
    )
