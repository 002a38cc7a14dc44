"""The recipes for published models pass the check, with look-alikes of their configurations and chat templates."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from offsft.config.loading import load
from offsft.pipeline.dry_run import check_model
from offsft.plan import STATED, estimate, shape_of
from tests.unit.prompts.lookalikes import lookalike

torch.set_num_threads(1)
RECIPES = Path(__file__).parents[3] / "jobs" / "recipes"
LLAMA_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
GEMMA_LAYERS = ["sliding_attention"] * 5 + ["full_attention"]
MODELS = {
    "Qwen/Qwen2.5-Math-7B": ("qwen2", "chatml", {"max_position_embeddings": 4096}),
    "Qwen/Qwen3-4B": ("qwen3", "qwen3", {"max_position_embeddings": 40960}),
    "Qwen/Qwen3-8B": ("qwen3", "qwen3", {"max_position_embeddings": 40960}),
    "Qwen/Qwen3-30B-A3B": ("qwen3_moe", "qwen3", {"max_position_embeddings": 40960, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "router_aux_loss_coef": 0.001}),
    "google/gemma-3-1b-it": ("gemma3_text", "gemma", {"max_position_embeddings": 32768, "sliding_window": 512, "layer_types": (GEMMA_LAYERS * 5)[:26]}),
    "meta-llama/Llama-3.1-8B-Instruct": ("llama", "llama3", {"max_position_embeddings": 131072, "rope_parameters": LLAMA_ROPE}),
    "meta-llama/Llama-3.1-70B-Instruct": ("llama", "llama3", {"max_position_embeddings": 131072, "rope_parameters": LLAMA_ROPE}),
    "meta-llama/Llama-3.2-3B-Instruct": ("llama", "llama3", {"max_position_embeddings": 131072, "rope_parameters": LLAMA_ROPE | {"factor": 32.0}}),
}  # fmt: skip
"""Each model's kind, the form of its chat template, and what its configuration has besides its shape."""
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml") if load(path, []).model.path in MODELS)


def folder_of(name, tmp_path):
    kind, template, more = MODELS[name]
    shape = STATED[name]
    config = AutoConfig.for_model(
        kind,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        **more,
    )
    config.save_pretrained(tmp_path)
    lookalike(template).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_passes_the_check_and_fits_its_machines(name, tmp_path):
    path = RECIPES / f"{name}.yaml"
    folder = folder_of(load(path, []).model.path, tmp_path)
    found = check_model(load(path, [f"model.path={folder}"]), str(folder), ("rewrite", "train", "evaluate"))
    assert [finding.text for finding in found if finding.stops] == []
    assert not [finding for finding in found if finding.about in ("packing", "training")]
    assert estimate(load(path, [])).misfits == []


@pytest.mark.parametrize("name", MODELS)
def test_a_shape_that_is_stated_is_that_of_the_configuration(name, tmp_path):
    assert shape_of(str(folder_of(name, tmp_path))) == STATED[name]
