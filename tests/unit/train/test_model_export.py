"""The exported folder: all that the source has, ends that were taught, and settings that transformers accepts."""

import json
import os

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.errors import ModelError, TrainingError
from offsft.train.export import Source, export, try_export
from offsft.train.generation import mend_generation, unite_ends

TAUGHT = 7


def tiny(kind="llama", **special):
    torch.manual_seed(0)
    size = {"vocab_size": 272, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "eos_token_id": 3, "pad_token_id": 0}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**size, **heads, **special}))


@pytest.fixture
def source(tmp_path):
    """A model's folder as they are published, with more in it than a tokenizer."""
    folder = tmp_path / "source"
    tiny().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    for name in ("preprocessor_config.json", "LICENSE", "merges.txt", "special notes.txt", "tokenizer.model"):
        (folder / name).write_bytes(f"{name} \x00".encode())
    for name in ("original/params.json", "original/consolidated.00.pth", ".cache/huggingface/x.lock", "optimizer.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    for name in ("model.safetensors.index.json", "pytorch_model-00001-of-00001.bin"):
        (folder / name).write_text("{}")
    return folder


def exported(source, model=None, end=TAUGHT, at=None):
    model = model or AutoModelForCausalLM.from_pretrained(source)
    folder = at or source.parent / "model"
    return folder, export(model, model.state_dict(), Source("me/base", source, end), folder)


def read(path):
    return json.loads(path.read_text())


def test_every_other_file_of_the_source_is_there_byte_for_byte(source):
    folder, notes = exported(source)
    assert notes == []
    kept = {
        "preprocessor_config.json", "LICENSE", "merges.txt", "special notes.txt", "tokenizer.model", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "original/params.json",
    }  # fmt: skip
    for name in kept:
        assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    made = {"config.json", "generation_config.json", "model.safetensors"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == kept | made


def test_weights_of_the_source_are_not_among_them(source):
    folder, _ = exported(source)
    assert not (folder / "original" / "consolidated.00.pth").exists()
    assert not list(folder.glob("*.bin"))
    assert not (folder / "model.safetensors.index.json").exists(), "an index of other shards"


def test_a_model_card_says_that_its_weights_are_others(source):
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Base\nIt reaches 80 %.\n")
    folder, _ = exported(source)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n---\n\n> Weights trained by offsft from `me/base`.")
    assert card.endswith("# Base\nIt reaches 80 %.\n")


@pytest.mark.parametrize("umask", [0o022, 0o007])
def test_other_users_may_read_the_weights_as_far_as_the_umask_lets_them(source, umask):
    before = os.umask(umask)
    try:
        folder, _ = exported(source)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert set(modes.values()) == {0o666 & ~umask}, modes


@pytest.mark.parametrize(
    ("ends", "want"), [(3, [3, TAUGHT]), ([3, 4], [3, 4, TAUGHT]), (TAUGHT, TAUGHT), ([TAUGHT, 3], [TAUGHT, 3])]
)
def test_generation_ends_with_the_sources_tokens_or_the_taught_one(source, ends, want):
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "max_new_tokens": 9}))
    folder, _ = exported(source)
    assert read(folder / "generation_config.json") == {"eos_token_id": want, "max_new_tokens": 9}
    assert read(folder / "config.json")["eos_token_id"] == [3, TAUGHT]
    assert AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == want


def test_a_source_without_generation_settings_ends_with_its_configurations_tokens(source):
    (source / "generation_config.json").unlink()
    folder, _ = exported(source)
    assert read(folder / "generation_config.json")["eos_token_id"] == [3, TAUGHT]


def test_ends_unite_where_there_was_none():
    assert unite_ends(None, 5) == 5
    assert unite_ends([], 5) == 5
    assert unite_ends(0, 5) == [0, 5]


@pytest.mark.parametrize(
    ("entries", "want", "note"),
    [
        ({"temperature": 0.9, "top_p": 0.6}, {"temperature": 0.9, "top_p": 0.6, "do_sample": True}, "do_sample=true was added"),
        ({"top_k": 20}, {"top_k": 20, "do_sample": True}, "since top_k"),
        ({"do_sample": False, "temperature": 0.7}, {"do_sample": False}, "temperature=0.7 was left out"),
        ({"temperature": 0}, {"do_sample": False}, "became do_sample=false"),
        ({"temperature": 0.5, "do_sample": True}, {"temperature": 0.5, "do_sample": True}, None),
        ({"pad_token_id": -1, "max_new_tokens": 4}, {"max_new_tokens": 4}, "pad_token_id=-1 was left out"),
        ({"max_new_tokens": 0}, {}, "max_new_tokens=0 was left out"),
        ({"early_stopping": True, "num_beams": 4}, {"early_stopping": True, "num_beams": 4}, None),
        ({"length_penalty": 2.0}, {}, "length_penalty=2.0 was left out"),
        ({"num_return_sequences": 3, "do_sample": True}, {"num_return_sequences": 3, "do_sample": True}, None),
        ({"chat_format": "chatml", "max_window_size": 24000}, {"chat_format": "chatml", "max_window_size": 24000}, None),
    ],
)  # fmt: skip
def test_generation_settings_that_saving_would_refuse_are_mended_and_named(entries, want, note):
    kept, notes = mend_generation(entries)
    assert kept == want
    assert bool(notes) is bool(note)
    assert note is None or note in " ".join(notes)
    GenerationConfig.from_dict(dict(kept)).validate(strict=True)


def test_a_model_with_mended_settings_loads_and_can_be_saved_again(source, tmp_path):
    (source / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6, "eos_token_id": 2}')
    folder, notes = exported(source)
    assert notes == [
        "generation_config.json: do_sample=true was added, since temperature, top_p have no effect without it"
    ]
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "again")


def test_generation_settings_within_the_configuration_move_to_their_own_file(source):
    tree = read(source / "config.json") | {"temperature": 0.7, "do_sample": True}
    (source / "config.json").write_text(json.dumps(tree))
    (source / "generation_config.json").unlink()
    folder, _ = exported(source)
    assert "temperature" not in read(folder / "config.json")
    assert read(folder / "generation_config.json")["temperature"] == 0.7


def test_a_generation_config_that_is_not_json_is_named(source):
    model = AutoModelForCausalLM.from_pretrained(source)
    (source / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json cannot be read: it is not valid JSON.*mend it"):
        exported(source, model)
    assert not (source.parent / "model").exists()


def test_the_exported_model_generates_to_its_natural_stop(source):
    """A model that was taught to answer with tokens 9, 9 and 7: whoever serves it must stop there."""
    model = tiny(tie_word_embeddings=False, hidden_size=32)
    answers = iter([9, 9, TAUGHT, 9, 9, 9])
    folder, _ = exported(source, model)
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    loaded.lm_head.register_forward_hook(lambda *call: one_word(call[2], next(answers)))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "2+2?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    said = loaded.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :].tolist()
    assert said == [9, 9, TAUGHT]


def one_word(logits, word):
    return torch.full_like(logits, -1e4).index_fill(-1, torch.tensor([word]), 0.0)


def test_a_failed_export_says_why_and_what_to_do_and_leaves_no_folder(source, capsys):
    model = AutoModelForCausalLM.from_pretrained(source)
    weights = model.state_dict() | {"lm_head.weight": torch.zeros(0)}
    target = source.parent / "model"
    notes, failure = try_export(lambda: export(model, weights, Source("me/base", source, TAUGHT), target), "runs/x")
    assert notes == []
    assert "the export failed: weights without values after gathering: lm_head.weight" in failure
    assert "python -m jobs.export_model run=runs/x" in failure
    assert not target.exists()
    _, failure = try_export(lambda: (_ for _ in ()).throw(ValueError("two\nlines")), "runs/x")
    assert "failed: ValueError: two; mend" in failure
    with pytest.raises(TrainingError):
        export(model, weights, Source("me/base", source, TAUGHT), target)
