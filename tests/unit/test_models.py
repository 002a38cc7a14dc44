"""Resolving a recipe's model, and refusing bad ones before anything starts."""

import json

import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import ModelConfig, PromptConfig
from offsft.errors import ConfigError, ModelError
from offsft.models import fingerprint, resolve_model
from offsft.prompts import load_prompts


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors({"w": 4}))
    return tmp_path


def safetensors(tensors):
    """A safetensors file of one-dimensional float32 zero tensors, by name and length."""
    header, end = {}, 0
    for name, length in tensors.items():
        header[name] = {"dtype": "F32", "shape": [length], "data_offsets": [end, end + 4 * length]}
        end += 4 * length
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def test_a_folder_is_taken_by_its_whole_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert resolve_model(ModelConfig(path=f"./{folder.name}")) == str(folder)


def test_pickled_weights_are_loaded_only_when_the_recipe_says_so(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors; .*model\.pickled_weights=true"):
        resolve_model(ModelConfig(path=str(folder)))
    assert resolve_model(ModelConfig(path=str(folder), pickled_weights=True)) == str(folder)


def test_code_that_comes_with_a_model_is_never_run_nor_asked_about(tmp_path, folder, monkeypatch):
    byte_tokenizer().save_pretrained(folder)
    own = {"AutoConfig": "own.Config", "AutoTokenizer": ["own.Tokenizer", None]}
    for name in ("config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text()) | {"auto_map": own, "tokenizer_class": "Tokenizer"}
        (folder / name).write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'has-run')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # an operator's possible answer to transformers
    with pytest.raises(ModelError, match="code that comes with a model is never run"):
        load_prompts(resolve_model(ModelConfig(path=str(folder))), None, PromptConfig(), "auto")
    assert not (tmp_path / "has-run").exists()


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("./nowhere", ConfigError, "does not exist"),
        (".", ModelError, "has no config.json"),
        ("./file", ConfigError, "is a file"),
    ],
)
def test_what_is_not_a_model_is_refused(tmp_path, monkeypatch, path, kind, message):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        resolve_model(ModelConfig(path=path))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 988097824\n"
WHOLE = safetensors({"w": 4})


def index(**shards):
    return json.dumps({"metadata": {}, "weight_map": shards}).encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model.safetensors": WHOLE[:-3]}, rf"model\.safetensors is {len(WHOLE) - 3} bytes long, but by its own header it must be {len(WHOLE)}"),
        ({"model.safetensors": WHOLE + b"x"}, "by its own header it must be"),
        ({"model.safetensors": WHOLE[:20]}, r"is 20 bytes long, and its header alone is"),
        ({"model.safetensors": b""}, "0 bytes long, too short"),
        ({"model.safetensors": b"<html>not found</html>"}, "does not begin as a safetensors file does"),
        ({"model.safetensors": (9).to_bytes(8, "little") + b'{"w": 1} '}, "does not begin as a safetensors file does"),
        ({"model.safetensors": POINTER}, r"model\.safetensors is a Git LFS pointer of \d+ bytes.*git lfs pull"),
        ({"tokenizer.json": POINTER}, r"tokenizer\.json is a Git LFS pointer"),
        ({"config.json": b'{"model_type": "ll'}, r"config\.json is not valid JSON"),
        ({"config.json": b"[]"}, r"config\.json holds no JSON object"),
        ({"model.safetensors.index.json": index(a="one.safetensors")}, r"names one\.safetensors, which is not in"),
        ({"model.safetensors.index.json": index(a="model.safetensors")}, "says that a is in model.safetensors, and it is not"),
        ({"model.safetensors.index.json": b"{}"}, "has no weight_map"),
        ({"model-00002-of-00003.safetensors": WHOLE}, r"but model-00001-of-00003\.safetensors is missing"),
        ({"pytorch_model.bin": b"PK\x03\x04 cut short"}, r"pytorch_model\.bin ends before its table of contents"),
        ({"pytorch_model.bin": b""}, r"pytorch_model\.bin is empty"),
        ({"pytorch_model.bin.index.json": index(a="x.bin", b="y.bin")}, r"names x\.bin, y\.bin, which are not in"),
    ],
)  # fmt: skip
def test_weights_that_are_not_whole_are_refused_by_name(folder, files, message):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"(?s)model\.path={folder}: .*{message}"):
        resolve_model(ModelConfig(path=str(folder)))


def test_whole_shards_with_their_index_pass(folder):
    (folder / "model.safetensors").unlink()
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors({f"w{number}": 3}))
    shards = {f"w{number}": f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    (folder / "model.safetensors.index.json").write_bytes(index(**shards))
    assert resolve_model(ModelConfig(path=str(folder))) == str(folder)


def test_what_torch_and_safetensors_write_passes(folder):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(0)}, folder / "model.safetensors")
    torch.save({"a": torch.zeros(3)}, folder / "pytorch_model.bin")
    assert resolve_model(ModelConfig(path=str(folder))) == str(folder)


def test_a_fingerprint_names_what_is_in_a_folder(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy")
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    before = fingerprint(str(folder))
    assert fingerprint(str(copy)) == before
    (copy / "model.safetensors").write_bytes(WHOLE[:-1] + b"x")
    assert fingerprint(str(copy)) != before
    assert (fingerprint("owner/name"), fingerprint("owner/name", "v2")) == ("main", "v2")
