"""What would stop a recipe is found before it starts, from a model's files without its weights."""

import json
import re

import pytest
import torch
from transformers import AutoConfig

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config.loading import load
from offsft.errors import ModelError
from offsft.pipeline.dry_run import check_model, check_recipe, refuse_what_stops

torch.set_num_threads(1)
ALL = ("rewrite", "train", "evaluate")
SIZE = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 1,
}  # fmt: skip


class Lines:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def folder_of(tmp_path, kind="llama", **special):
    """A model's folder without weights: configuration, tokenizer, template."""
    folder = tmp_path / kind
    byte_tokenizer().save_pretrained(folder)
    AutoConfig.for_model(kind, **{**SIZE, **special}).save_pretrained(folder)
    return folder


def recipe_of(folder, *overrides):
    return load(None, [f"run={folder.parent / 'run'}", f"model.path={folder}", *overrides])


def findings(folder, *overrides, stages=ALL):
    return check_model(recipe_of(folder, *overrides), str(folder), stages)


def stopping(found):
    return [f"{each.about}: {each.text}" for each in found if each.stops]


def test_a_model_that_can_be_trained_and_exported_has_no_finding(tmp_path):
    assert findings(folder_of(tmp_path)) == []


def test_a_whole_recipe_is_checked_without_weights_and_leaves_nothing(tmp_path):
    folder = folder_of(tmp_path)
    (weights,) = check_recipe(recipe_of(folder), ALL)
    assert (weights.about, weights.stops) == ("weights", False)
    assert not (tmp_path / "run").exists()
    found = check_recipe(
        recipe_of(folder, f"data.path={tmp_path}/none.jsonl", "train.max_tokens=4096", "train.micro_batch_tokens=4096"),
        ALL,
    )
    assert [each.about for each in found] == ["input", "weights", "lengths"], "one does not hide the other"


@pytest.mark.parametrize(
    ("kind", "special", "overrides", "message"),
    [
        ("llama", {"max_position_embeddings": 512}, ["train.max_tokens=512"], "lengths: model.context_tokens=1024 is beyond the 512 positions"),
        ("gpt2", {"max_position_embeddings": 256}, ["model.context_tokens=256", "rewrite.max_tokens=99", "evaluate.max_tokens=99"], "lengths: train.max_tokens=1024 is beyond the 256 positions"),
        ("llama", {"vocab_size": 100}, [], "vocabulary: the tokenizer .* gives id .* and the model has 100 words"),
        ("bert", {}, [], "training: bert is not causal"),
        ("t5", {}, [], "training: t5 is not a causal language model"),
        ("llama", {}, ["train.lora.rank=4", "train.lora.targets=[query_key_value]"], "training: train.lora.targets=.*name layers that llama has"),
    ],
)  # fmt: skip
def test_what_would_stop_a_run_after_hours_is_found_at_once(tmp_path, kind, special, overrides, message):
    (text,) = stopping(findings(folder_of(tmp_path, kind, **special), *overrides))
    assert re.search(message, text), text
    assert str(tmp_path / kind) in text or "lengths" not in text


def test_a_style_that_the_template_does_not_take_is_found(tmp_path):
    folder = folder_of(tmp_path)
    template = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}<|user|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|user|>{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    (text,) = stopping(findings(folder, "evaluate.style=qwen-boxed"))
    assert text.startswith("template: the chat template of")
    assert "takes no system message" in text


def test_a_job_does_not_start_where_something_stops_it(tmp_path):
    folder = folder_of(tmp_path, "bert")
    with pytest.raises(ModelError, match="bert is not causal"):
        refuse_what_stops(recipe_of(folder), str(folder), ALL, Lines())


def test_rewriting_alone_is_not_stopped_by_a_model_that_cannot_be_trained(tmp_path):
    folder, console = folder_of(tmp_path, "bert"), Lines()
    refuse_what_stops(recipe_of(folder), str(folder), ("rewrite",), console)
    assert console.said == [
        f"note: a training of this model would stop: {text[10:]}" for text in stopping(findings(folder))
    ]


def test_a_hybrid_is_trained_one_row_at_a_time_and_said_to_be(tmp_path):
    special = {
        "head_dim": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "num_experts": 4,
        "moe_intermediate_size": 16,
    }
    (found,) = findings(folder_of(tmp_path, "qwen3_next", **special))
    assert (found.about, found.stops) == ("packing", False)
    assert "qwen3_next is trained one row per micro-batch" in found.text


def test_generation_settings_that_will_be_mended_are_said(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}')
    (found,) = findings(folder)
    assert (found.about, found.stops) == ("export", False)
    assert "do_sample=true was added" in found.text


def test_a_generation_config_that_cannot_be_read_stops_before_the_training(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "generation_config.json").write_text("{")
    (text,) = stopping(findings(folder))
    assert text.startswith("export: the trained model could not be saved: ")


def test_positions_that_switch_are_named_where_the_sampler_would_use_others(tmp_path):
    long = [1.0] * 8
    rope = {"rope_type": "longrope", "long_factor": [4.0] * 8, "short_factor": long, "factor": 4.0, "rope_theta": 1e4}
    special = {
        "rope_parameters": rope | {"original_max_position_embeddings": 512},
        "original_max_position_embeddings": 512,
    }
    folder = folder_of(tmp_path, "phi3", **special)
    texts = {each.about: each.text for each in findings(folder)}
    assert "other rotary positions for rows of more than 512 tokens" in texts["lengths"]
    assert "one row per micro-batch" in texts["packing"]
    short = ["model.context_tokens=512", "train.max_tokens=512", "rewrite.max_tokens=256", "evaluate.max_tokens=256"]
    assert findings(folder, *short) == [], "no row reaches the switch"


def test_tokens_without_a_row_in_the_model_are_said(tmp_path):
    folder = folder_of(tmp_path)
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["added_tokens"].append({"id": 999, "content": "<|image|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True})  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    found = findings(folder)
    assert [(each.about, each.stops) for each in found] == [("vocabulary", False)] or found == []
