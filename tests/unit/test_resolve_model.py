"""Which model a recipe means, and what is refused before anything starts."""

import pytest

from offsft.config import Model
from offsft.errors import ModelError
from offsft.pipeline import resolve_model


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


@pytest.mark.parametrize(("path", "message"), [("./nowhere", "does not exist"), (".", "has no config.json")])
def test_what_is_no_model_is_refused(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        resolve_model(Model(path=path))
