"""Model families with special logits or layers: scaled, capped, windowed; those that cannot be packed are refused."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from offsft.config.objective import Dft
from offsft.errors import ModelError
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.rows import Row, pack

SIZE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES = {
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0, "sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "final_logit_softcapping": None},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 6.0},
    "mistral": {"sliding_window": 4},
    "olmo2": {},
    "phi": {"partial_rotary_factor": 0.5},  # its head has a bias
    "gptj": {"rotary_dim": 4},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
}
ROWS = [
    Row("a", "self", [5, 6, 7, 8, 9, 10], [8, 9, 10, 11]),
    Row("b", "self", [12, 13], [14]),
    Row("c", "expert", [15, 3, 4, 5, 6], [16, 17, 18, 19, 20, 21]),
]


def tiny(kind, **special):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZE, **special}), dtype=torch.float32)
    with torch.no_grad():  # far enough from 0 for caps to take effect and for layers to matter
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
            elif name.endswith("lm_head.bias"):
                parameter.normal_()
    return model.eval()


def plain_loss(model):
    """DFT from the model's own logits, row by row, and its gradient with respect to the embedding."""
    model.zero_grad()
    loss = torch.zeros(())
    for row in ROWS:
        logits = model(torch.tensor([row.prompt_ids + row.response_ids])).logits[0, len(row.prompt_ids) - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(1, torch.tensor(row.response_ids)[:, None])
        loss = loss - (logprobs.exp().detach() * logprobs).sum()
    loss.backward()
    return loss.detach(), model.get_input_embeddings().weight.grad.clone()


def head_bias_gradient(model):
    bias = getattr(model.get_output_embeddings(), "bias", None)
    return None if bias is None else bias.grad.clone()


@pytest.mark.parametrize("kind", FAMILIES)
def test_packed_through_the_head_equals_own_logits_row_by_row(kind):
    model = tiny(kind, **FAMILIES[kind])
    want, want_gradient = plain_loss(model)
    want_bias = head_bias_gradient(model)
    model.zero_grad()
    loss = loss_of(PolicyLoss(model, Dft(), chunk_tokens=3), pack(ROWS, [0, 1, 2])).loss
    loss.backward()
    torch.testing.assert_close(loss.detach(), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, want_gradient, rtol=1e-3, atol=1e-5)
    if want_bias is not None:
        torch.testing.assert_close(head_bias_gradient(model), want_bias, rtol=1e-3, atol=1e-5)


def test_a_state_that_crosses_rows_is_refused_packed_and_exact_row_by_row():
    model = tiny("mamba", state_size=4)
    with pytest.raises(ModelError, match="mamba lets packed rows see each other"):
        PolicyLoss(model, Dft())
    want, want_gradient = plain_loss(model)
    model.zero_grad()
    policy = PolicyLoss(model, Dft(), packed=False)
    loss = sum(loss_of(policy, pack(ROWS, [number])).loss for number in range(3))
    loss.backward()
    torch.testing.assert_close(loss.detach(), want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, want_gradient, rtol=1e-3, atol=1e-5)


def test_weights_that_are_not_numbers_are_said_before_the_first_step():
    model = tiny("qwen3", head_dim=8)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"log-probs of this qwen3 are not numbers: .* fetch the model again"):
        PolicyLoss(model, Dft())


def test_an_unknown_treatment_of_logits_is_refused():
    model = tiny("granite", logits_scaling=4.0)
    forward = model.forward

    def squared(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits**2
        return out

    model.forward = squared
    with pytest.raises(ModelError, match="granite does something to its logits"):
        PolicyLoss(model, Dft())
