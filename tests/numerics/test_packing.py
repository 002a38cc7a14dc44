"""Rows packed into one sequence give the loss and gradients of the same rows one by one."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from offsft.config.objective import Dft, Is, IwSft, Sft
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.rows import Row, pack
from offsft.train.schedule import learning_rate

ROWS = [
    Row("a", "self", [5, 6, 7], [8, 9, 10, 11], behavior=[-5.0, -6.0, -5.5, -4.0], reference=[-6.0] * 4),
    Row("b", "guided", [12, 13], [14], behavior=[-6.0], reference=[-5.0], weight=0.5),
    Row("c", "expert", [15], [16, 17, 18, 19, 20, 21], reference=[-5.5] * 6, weight=2.0),
]


def loss_and_gradients(model_folder, objective, batches):
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    policy = PolicyLoss(model, objective, chunk_tokens=3)
    total = torch.zeros(())
    for batch in batches:
        loss = loss_of(policy, pack(ROWS, batch)).loss
        loss.backward()
        total += loss.detach()
    return total, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("objective", [Sft(), Dft(), Is(), IwSft()], ids=lambda o: o.kind)
def test_packed_equals_one_by_one(tiny_model, objective):
    packed_loss, packed = loss_and_gradients(tiny_model, objective, [[0, 1, 2]])
    single_loss, single = loss_and_gradients(tiny_model, objective, [[0], [1], [2], []])
    torch.testing.assert_close(packed_loss, single_loss, rtol=1e-5, atol=1e-5)
    for name in packed:
        torch.testing.assert_close(packed[name], single[name], rtol=1e-3, atol=1e-5, msg=name)


def test_the_loss_is_that_of_transformers_over_the_response_alone(tiny_model):
    loss, _ = loss_and_gradients(tiny_model, Sft(), [[0, 1, 2]])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    total = 0.0
    for row in ROWS:
        ids = torch.tensor([row.prompt_ids + row.response_ids])
        labels = torch.tensor([[-100] * len(row.prompt_ids) + row.response_ids])
        total += model(input_ids=ids, labels=labels).loss * row.loss_normalizer
    torch.testing.assert_close(loss, total.detach(), rtol=1e-4, atol=1e-4)


def test_an_empty_micro_batch_reaches_the_weights(tiny_model):
    loss, gradients = loss_and_gradients(tiny_model, Dft(), [[]])
    assert loss.item() == 0.0
    assert all(gradient is not None and not gradient.any() for gradient in gradients.values())


def test_the_learning_rate_rises_to_its_peak_and_falls():
    rates = [learning_rate(s, peak=1.0, steps=20, warmup=0.2, schedule="cosine") for s in range(20)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.05
    assert {learning_rate(s, peak=1.0, steps=9, warmup=0.0, schedule="constant") for s in range(9)} == {1.0}
