"""Which model a recipe means, and what is refused before anything starts."""

import json

import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import Model, Prompt
from offsft.errors import ModelError
from offsft.pipeline import resolve_model
from offsft.prompts import load_prompts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def test_a_folder_is_taken_by_its_whole_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert resolve_model(Model(path=f"./{folder.name}")) == str(folder)


def test_pickled_weights_are_loaded_only_when_the_recipe_says_so(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors; .*model\.pickled_weights=true"):
        resolve_model(Model(path=str(folder)))
    assert resolve_model(Model(path=str(folder), pickled_weights=True)) == str(folder)


def test_code_that_comes_with_a_model_is_never_run_nor_asked_about(tmp_path, folder, monkeypatch):
    byte_tokenizer().save_pretrained(folder)
    own = {"AutoConfig": "own.Config", "AutoTokenizer": ["own.Tokenizer", None]}
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text()) | {"auto_map": own, "tokenizer_class": "Tokenizer"}
        (folder / name).write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'has-run')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what an operator might answer transformers
    with pytest.raises(ModelError, match="code that comes with a model is never run"):
        load_prompts(resolve_model(Model(path=str(folder))), None, Prompt())
    assert not (tmp_path / "has-run").exists()


@pytest.mark.parametrize(("path", "message"), [("./nowhere", "does not exist"), (".", "has no config.json")])
def test_what_is_no_model_is_refused(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        resolve_model(Model(path=path))
