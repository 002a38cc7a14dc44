"""A model's files of weights: which they are, and that they are complete, by their own headers: in milliseconds, before an engine starts.

An interrupted download leaves a file that is too short or a missing shard; a repository cloned without Git LFS has a
pointer in place of the weights. An engine finds that after minutes, and reports a different error.
"""

import json
import re
import zipfile
from typing import Any

from upath import UPath

from offsft.errors import ModelError
from offsft.storage.paths import StoragePath

WEIGHT_FILES = (
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.npz",
    "*.tflite", "*.index.json", "*.distcp",
)  # fmt: skip
"""Names of weights in any format, of any library, and of their indices."""
_LFS = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
_HEADER_BYTES = 100_000_000
"""Longest header that the safetensors format allows."""
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
_AGAIN = "fetch the model again, whole"


def check_weights(folder: StoragePath) -> None:
    """Check each file of a model's folder by its beginning and its length.

    Raises:
        ModelError: a file is a Git LFS pointer, is not as long as it says, is not what its name says, or is missing.
    """
    sizes = _sizes(folder)
    for name, size in sizes.items():
        _refuse_pointer(folder / name, size)
    _read_json(folder / "config.json")
    tensors = {name: _tensors(folder / name, size) for name, size in sizes.items() if name.endswith(".safetensors")}
    for name, size in sizes.items():
        if name.endswith(".bin"):
            _check_pickle(folder / name, size)
        elif name.endswith((".safetensors.index.json", ".bin.index.json")):
            _check_index(folder / name, sizes.keys(), tensors)
    _check_numbers(folder, sizes.keys())


def _sizes(folder: StoragePath) -> dict[str, int]:
    """Size in bytes of each file directly in the folder, by name; on S3 from one listing."""
    if isinstance(folder, UPath):
        found: Any = folder.fs.ls(folder.path, detail=True)
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in found if entry["type"] == "file"}
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def _refuse_pointer(path: StoragePath, size: int) -> None:
    if size <= _POINTER_BYTES and _read(path, 0, len(_LFS)) == _LFS:
        raise ModelError(
            f"{path} is a Git LFS pointer of {size} bytes and not the file itself; run `git lfs pull` in its folder"
        )


def _tensors(path: StoragePath, size: int) -> set[str]:
    """Names of the tensors in a safetensors file, whose length is checked against its header."""
    if size < 8:
        raise ModelError(f"{path} is {size} bytes long, too short for a safetensors file; {_AGAIN}")
    header_bytes = int.from_bytes(_read(path, 0, 8), "little")
    if header_bytes > _HEADER_BYTES:
        raise ModelError(f"{path} does not begin as a safetensors file does; {_AGAIN}")
    if 8 + header_bytes > size:
        raise ModelError(f"{path} is {size} bytes long, and its header alone is {header_bytes}; {_AGAIN}")
    try:
        header = json.loads(_read(path, 8, header_bytes))
        tensors = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        needed = 8 + header_bytes + max((int(end) for _, end in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{path} does not begin as a safetensors file does; {_AGAIN}") from None
    if size != needed:
        raise ModelError(f"{path} is {size} bytes long, but by its own header it must be {needed}; {_AGAIN}")
    return set(tensors)


def _check_pickle(path: StoragePath, size: int) -> None:
    # torch.save writes a zip archive, whose table of contents comes last; older files are bare pickles.
    if size == 0:
        raise ModelError(f"{path} is empty; {_AGAIN}")
    if _read(path, 0, 4) == b"PK\x03\x04":
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ModelError(f"{path} ends before its table of contents: it is cut short; {_AGAIN}")


def _check_index(path: StoragePath, files: Any, tensors: dict[str, set[str]]) -> None:
    named = _read_json(path).get("weight_map")
    if not isinstance(named, dict):
        raise ModelError(f"{path} has no weight_map, so it is not an index of weights; {_AGAIN}")
    shards = {str(shard) for shard in named.values()}
    if missing := sorted(shards - set(files)):
        raise ModelError(f"{path} names {', '.join(missing)}, which {_are(missing)} not in {path.parent}; {_AGAIN}")
    for tensor, shard in named.items():
        if shard in tensors and tensor not in tensors[shard]:
            raise ModelError(
                f"{path} says that {tensor} is in {shard}, and it is not: they do not belong together; {_AGAIN}"
            )


def _check_numbers(folder: StoragePath, files: Any) -> None:
    """Check by their numbers that all shards are there, also those that no index names."""
    for name in files:
        match = _SHARD.fullmatch(name)
        if match is None:
            continue
        stem, _, total, suffix = match.groups()
        wanted = [f"{stem}-{number:05d}-of-{total}{suffix}" for number in range(1, int(total) + 1)]
        if missing := [each for each in wanted if each not in files]:
            raise ModelError(f"{folder} holds {name}, but {missing[0]} is missing; {_AGAIN}")


def _read_json(path: StoragePath) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); {_AGAIN}") from None
    if not isinstance(tree, dict):
        raise ModelError(f"{path} holds no JSON object; {_AGAIN}")
    return tree


def _read(path: StoragePath, start: int, length: int) -> bytes:
    if isinstance(path, UPath):  # the client's own open would prefetch megabytes
        content: Any = path.fs.cat_file(path.path, start=start, end=start + length)
        return content
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _are(names: list[str]) -> str:
    return "are" if len(names) > 1 else "is"
