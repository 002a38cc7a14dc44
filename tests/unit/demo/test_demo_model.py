"""The embedded model's cache, without the model: which files are refused, and which count as intact."""

import hashlib
import json
from importlib import metadata

import pytest

from offsft.demo import model
from offsft.demo.model import _clear, _intact, embedded_model
from offsft.errors import ModelError
from offsft.storage.paths import cache_folder


@pytest.fixture
def folder(tmp_path):
    """A folder as left by a conversion, with small files."""
    made = tmp_path / "models" / "M"
    made.mkdir(parents=True)
    contents = {"model.safetensors": b"weights", "config.json": b"{}"}
    for name, content in contents.items():
        (made / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (made / "offsft-manifest.json").write_text(json.dumps(hashes))
    return made


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("OFFSFT_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("OFFSFT_HOME")
    assert cache_folder() == tmp_path / "b" / "offsft"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c" / ".cache" / "offsft"


def test_a_missing_package_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(model, "PACKAGE", "offsft-no-such-package")
    with pytest.raises(ModelError, match="make setup"):
        embedded_model(tmp_path)


def test_a_package_without_a_model_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "files", lambda _: [])
    monkeypatch.setattr(model, "PACKAGE", "pytest")
    with pytest.raises(ModelError, match="--force-reinstall pytest"):
        embedded_model(tmp_path)


def test_a_whole_folder_is_intact(folder):
    assert _intact(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_one_changed_byte_of_the_same_length_is_seen(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert not _intact(folder)


def test_a_missing_or_truncated_file_is_seen(folder):
    (folder / "model.safetensors").write_bytes(b"weig")
    assert not _intact(folder)
    (folder / "model.safetensors").unlink()
    assert not _intact(folder)


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "{}", "null", '{"config.json": "0"}', '["model.safetensors"]', "\xff"]
)
def test_a_manifest_that_cannot_be_trusted_is_no_manifest(folder, manifest):
    (folder / "offsft-manifest.json").write_bytes(manifest.encode("latin-1"))
    assert not _intact(folder)


def test_a_half_written_folder_is_not_intact(folder):
    (folder / "offsft-manifest.json").unlink()
    assert not _intact(folder)
    assert not _intact(folder / "nothing")


def test_clearing_removes_the_folder_and_its_left_overs_and_nothing_else(folder):
    left_over = folder.with_name(".M.abc")
    (left_over / "model").mkdir(parents=True)
    lock, other = folder.with_name(".M.lock"), folder.with_name("N")
    lock.touch()
    other.mkdir()
    _clear(folder)
    assert sorted(folder.parent.iterdir()) == [lock, other]
    folder.write_text("a file where the folder belongs")
    _clear(folder)
    assert not folder.exists()
    _clear(folder)


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path):
    (tmp_path / "models").write_text("a file where a folder belongs")
    with pytest.raises(ModelError, match="OFFSFT_HOME"):
        embedded_model(tmp_path)
