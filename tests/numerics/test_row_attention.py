"""Each packed row is a block of attention of its own, equal in forward and backward to a model's own attention."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gemma2 import modeling_gemma2

from offsft.config.objective import Dft
from offsft.train import attention
from offsft.train.attention import NAME, RowLengths, attend_by_row, run_packed
from offsft.train.policy import PolicyLoss

LENGTHS = (5, 1, 11, 2)
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
WINDOWED = {"head_dim": 8, "sliding_window": 4}
FAMILIES = {
    "llama": {},
    "llama_one_head_of_keys": {"num_key_value_heads": 1},
    "llama_all_heads_of_keys": {"num_key_value_heads": 4},
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"head_dim": 8},
    "gemma2": {**WINDOWED, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 0.1},
    "gemma3_text": WINDOWED,
    "mistral": WINDOWED,
    "phi3": {"sliding_window": 3},
    "cohere2": {"sliding_window": 4},
    "granite": {"attention_multiplier": 0.3},
    "olmo2": {},
    "mixtral": {"num_local_experts": 2},
    "gpt_oss": {**WINDOWED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


def tiny(name, **special):
    """A small model whose attention matters: weights are far enough from 0 for caps, sinks and windows to show."""
    torch.manual_seed(0)
    kind = name.split("_one")[0].split("_all")[0]
    config = AutoConfig.for_model(kind, **{**SIZE, **FAMILIES.get(name, {}), **special})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model.eval()


def ids_of(lengths, seed=1):
    return torch.randint(0, 96, (1, sum(lengths)), generator=torch.Generator().manual_seed(seed))


def run(model, implementation, ids, lengths):
    """The hidden states, and the gradients of a fixed sum over them."""
    model.set_attn_implementation(implementation)
    model.zero_grad()
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(ids.device)
    hidden = run_packed(model, ids, positions, RowLengths.of(lengths).to(ids.device)).last_hidden_state
    (hidden * torch.linspace(-1, 1, hidden.numel(), device=ids.device).view_as(hidden)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return hidden.detach(), gradients


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_row_is_computed_as_by_the_models_own_attention_on_the_row_alone(name):
    model, ids = tiny(name), ids_of(LENGTHS)
    assert attend_by_row(model, 1e-4)
    hidden, gradients = run(model, NAME, ids, LENGTHS)
    alone, offset = [], 0
    whole = torch.linspace(-1, 1, hidden.numel()).view_as(hidden)
    model.set_attn_implementation("eager")
    model.zero_grad()
    for row in ids.split(LENGTHS, dim=1):
        found = model.base_model(input_ids=row, use_cache=False).last_hidden_state
        (found * whole[:, offset : offset + row.shape[1]]).sum().backward()
        alone.append(found.detach())
        offset += row.shape[1]
    summed = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(hidden, torch.cat(alone, 1), rtol=1e-4, atol=1e-4)
    assert gradients.keys() == summed.keys()
    for each, got in gradients.items():
        torch.testing.assert_close(got, summed[each], rtol=1e-3, atol=1e-4 * float(summed[each].abs().max()), msg=each)


@pytest.mark.parametrize(
    ("name", "special", "without"),
    [
        ("gemma2", {}, {"attn_logit_softcapping": None}),
        ("mistral", {}, {"sliding_window": None}),
        ("gpt_oss", {}, {"sliding_window": 100}),
    ],
)
def test_caps_and_windows_show_in_these_models(name, special, without):
    ids = ids_of(LENGTHS)
    with_it, _ = run(tiny(name, **special), "eager", ids, LENGTHS)
    without_it, _ = run(tiny(name, **without), "eager", ids, LENGTHS)
    assert (with_it - without_it).abs().max() > 0.01


def test_nothing_is_computed_between_rows(monkeypatch):
    seen = []
    own = attention.functional.scaled_dot_product_attention

    def look(query, key, value, mask=None, **options):
        seen.append((query.shape[2], key.shape[2], mask is None))
        return own(query, key, value, mask, **options)

    model = tiny("llama")
    attend_by_row(model, 1e-4)
    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", look)
    run(model, NAME, ids_of(LENGTHS), LENGTHS)
    assert seen == [(length, length, True) for length in LENGTHS] * 2


def test_a_window_makes_a_mask_only_for_longer_rows(monkeypatch):
    seen = []
    own = attention.functional.scaled_dot_product_attention

    def look(query, key, value, mask=None, **options):
        seen.append(None if mask is None else tuple(mask.shape))
        return own(query, key, value, mask, **options)

    model = tiny("mistral")
    attend_by_row(model, 1e-4)
    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", look)
    run(model, NAME, ids_of((4, 5)), (4, 5))
    assert seen == [None, (1, 1, 5, 5)] * 2


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3_text"])
def test_without_the_rows_lengths_the_whole_mask_keeps_rows_apart(name):
    model, ids = tiny(name), ids_of(LENGTHS)
    attend_by_row(model, 1e-4)
    want, _ = run(model, "eager", ids, LENGTHS)
    model.set_attn_implementation(NAME)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    got = model.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_padded_rows_of_a_batch_are_as_with_the_models_own_attention():
    model, ids = tiny("llama"), ids_of((12,)).view(2, 6)
    attend_by_row(model, 1e-4)
    padding = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    found = {}
    for name in ("eager", NAME):
        model.set_attn_implementation(name)
        found[name] = model(input_ids=ids, attention_mask=padding, use_cache=False).logits[padding.bool()]
    torch.testing.assert_close(found[NAME], found["eager"], rtol=1e-4, atol=1e-5)


def test_an_attention_with_an_unknown_part_stays_the_models_own_written_out(monkeypatch):
    own = modeling_gemma2.eager_attention_forward

    def with_a_bias(module, query, *given, **options):
        out, shares = own(module, query, *given, **options)
        return out + 0.1, shares

    monkeypatch.setattr(modeling_gemma2, "eager_attention_forward", with_a_bias)
    model = tiny("gemma2")
    assert not attend_by_row(model, 1e-3)
    assert model.config._attn_implementation == "eager", "torch's attention would leave the part out"


@pytest.mark.parametrize("packed", [True, False])
def test_a_model_that_looks_into_its_mask_does_not_get_this_attention(packed):
    model = tiny("doge", head_dim=8)
    assert not attend_by_row(model, 1e-3, packed=packed)
    assert model.config._attn_implementation in {"sdpa", "eager"}


def test_a_policy_attends_row_by_row_and_its_export_does_not_say_so(tmp_path):
    model = tiny("llama")
    PolicyLoss(model, Dft())
    assert model.config._attn_implementation == NAME
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()


def test_recomputed_activations_give_the_same_gradients():
    model, ids = tiny("llama"), ids_of(LENGTHS)
    attend_by_row(model, 1e-4)
    model.train()
    _, want = run(model, NAME, ids, LENGTHS)
    model.gradient_checkpointing_enable()
    _, got = run(model, NAME, ids, LENGTHS)
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, **TOLERANCE, msg=name)


def by_definition(query, key, value, starts_q, starts_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What torch's page says of `varlen_attn`: (T, H, D) tensors, a window of (tokens before, tokens after)."""
    assert torch.equal(starts_q, starts_k)
    assert starts_q.dtype == torch.int32
    assert max_q == max_k == int(starts_q.diff().max())
    before, after = window_size
    assert after == 0
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value))
    found = []
    for start, end in zip(starts_q.tolist(), starts_q.tolist()[1:], strict=False):
        q, k, v = (each[start:end].transpose(0, 1) for each in (query, key, value))
        back = torch.arange(end - start)[:, None] - torch.arange(end - start)
        seen = (back >= 0) & ((back <= before) if before >= 0 else True)
        scores = (q @ k.mT * scale).masked_fill(~seen, -torch.inf)
        found.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("name", ["llama", "llama_all_heads_of_keys", "gemma3_text", "mistral"])
def test_flash_attention_is_asked_for_the_same(name, monkeypatch):
    from torch.nn.attention import varlen

    model, ids = tiny(name), ids_of(LENGTHS)
    assert attend_by_row(model, 1e-4)
    want, _ = run(model, NAME, ids, LENGTHS)
    monkeypatch.setattr(attention, "_runs_flash", lambda query, value, mask: mask.causal)
    monkeypatch.setattr(varlen, "varlen_attn", by_definition)
    got, _ = run(model, NAME, ids, LENGTHS)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mistral", "gemma2", "gpt_oss"])
def test_on_a_gpu_rows_are_as_with_the_models_own_attention(name):
    """In bfloat16, whose rounding alone moves hidden states by one or two per cent."""
    model, ids = tiny(name, num_attention_heads=4, head_dim=16).to("cuda", torch.bfloat16), ids_of(LENGTHS).cuda()
    assert attend_by_row(model, 0.05)
    hidden, _ = run(model, NAME, ids, LENGTHS)
    model.set_attn_implementation("eager")
    alone = [model.base_model(input_ids=row, use_cache=False).last_hidden_state for row in ids.split(LENGTHS, 1)]
    assert (hidden - torch.cat(alone, 1)).norm() < 0.05 * hidden.norm()
