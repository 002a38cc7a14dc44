"""What a plan claims, against a model of known size that is here."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from offsft.config import TrainConfig
from offsft.config.objective import Sft
from offsft.plan import shape_of, training
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.rows import Row, pack

SIZE = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "intermediate_size": 320, "vocab_size": 512, "tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
TOKENS = 256


@pytest.fixture(params=["llama", "qwen2", "qwen3", "gemma3_text", "qwen3_moe"])
def model(request):
    torch.manual_seed(0)
    more = EXPERTS if request.param == "qwen3_moe" else {}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(request.param, **SIZE, **more), dtype=torch.float32)


def test_parameters_cache_and_optimizer_are_as_counted(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    cache = model.eval()(torch.arange(8)[None], use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 8 * shape.cache_bytes(width=4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(8)[None], use_cache=False).logits.sum().backward()
    optimizer.step()
    parts = training(shape, TrainConfig(zero_stage=0), "float32").parts
    moments = sum(each.nbytes for state in optimizer.state.values() for each in state.values() if each.dim())
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert (moments, gradients) == pytest.approx((parts["optimizer"], parts["gradients"]), rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_about_as_estimated(checkpointing, tmp_path):
    """Autograd keeps more in norms than is counted: half as much again is the bound of an estimate."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZE), dtype=torch.float32)
    model.config.save_pretrained(tmp_path)
    policy = PolicyLoss(model, Sft())
    if checkpointing:
        model.gradient_checkpointing_enable()
    policy.train()
    kept, weights = {}, {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    row = Row("a", "self", [5], [6 + number % 500 for number in range(TOKENS - 1)])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(policy, pack([row], [0]))
    shape = shape_of(str(tmp_path))
    # Recomputed, what is inside a layer comes into being in the backward pass; each layer's input is kept, and the head's.
    inputs = shape.layers * 4 * TOKENS * shape.hidden
    expected = inputs if checkpointing else shape.activation_bytes(TOKENS, checkpointing=False, width=4)
    assert 0.8 < sum(kept.values()) / expected < (2 if checkpointing else 1.5)
