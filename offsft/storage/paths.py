"""Paths of runs, problems and models: local folders or s3:// URLs, behind one kind of path.

Local paths are `pathlib`'s, S3 paths are `upath`'s, with the same interface; the functions here hide the differences.
S3 has no folders and no renames, but a file appears there whole or not at all.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
from upath import UPath

from offsft.errors import ConfigError, StorageError
from offsft.storage import s3

StoragePath = Path | UPath
WHOLE = "_complete"
"""Name of the file that is written last into a folder on S3 whose own files do not show that it is complete."""


def is_url(path: str) -> bool:
    """Whether a path is a URL rather than a local path."""
    return "://" in path


def at(path: str, setting: str = "run") -> StoragePath:
    """Parse a path; a local one is left as it is written.

    Raises:
        ConfigError: it is a URL, but not of S3; names the `setting`.
    """
    if not is_url(path):
        return Path(path)
    bucket = path.removeprefix("s3://").split("/")[0]
    if not path.startswith("s3://") or not bucket:
        raise ConfigError(
            f"{setting}={path} is not a place that offsft can use; give a path on a disk, or s3://bucket/path"
        )
    return s3.path_of(path)


def is_folder(model: str) -> bool:
    """Whether a model is a folder or a URL, not a Hugging Face name; only names have revisions."""
    return is_url(model) or Path(model).exists()


def arrow(path: StoragePath) -> tuple[pyarrow.fs.FileSystem, str]:
    """pyarrow's file system of a path, and the path in it."""
    if isinstance(path, UPath):
        return s3.S3(), path.path
    return pyarrow.fs.LocalFileSystem(), str(path)


def make(folder: StoragePath) -> None:
    """Create a folder and its parents; S3 needs none, and a bucket is never created."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def remove(folder: StoragePath) -> None:
    """Delete a folder and its contents, if it exists."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)


def write_bytes(path: StoragePath, content: bytes, *, shared: bool = False) -> None:
    """Replace a file's content atomically: a reader sees the old or the new, never a part.

    `shared` is for a file that several processes may write at once: each first writes a separate file next to it.
    """
    if isinstance(path, UPath):
        path.fs.pipe_file(path.path, content)
        return
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial" if shared else f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def writing(path: StoragePath) -> Iterator[Path]:
    """A local file to write, which becomes `path` once the block has succeeded; a failed block leaves nothing."""
    if isinstance(path, UPath):
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / path.name
            yield local
            path.fs.put_file(str(local), path.path)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def filling(folder: StoragePath, last: str = WHOLE) -> Iterator[Path]:
    """A local folder to write into, whose files replace the contents of `folder` once the block has succeeded.

    On a disk the folder appears by a rename. On S3 its file `last` is deleted first and written last.
    """
    if isinstance(folder, UPath):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
            _put_all(Path(scratch), folder, last)
        return
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def is_filled(folder: StoragePath, last: str = WHOLE) -> bool:
    """Whether a folder written by `filling` exists and is complete."""
    return folder.exists() if isinstance(folder, Path) else (folder / last).exists()


def _put_all(source: Path, folder: UPath, last: str) -> None:
    (folder / last).unlink(missing_ok=True)
    remove(folder)
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source).as_posix()
        if path.is_file() and inner != last:
            folder.fs.put_file(str(path), (folder / inner).path)
    write_bytes(folder / last, (source / last).read_bytes() if (source / last).exists() else b"")


def get_all(folder: StoragePath, target: Path) -> None:
    """Copy all files below a folder on S3 to a local one.

    Raises:
        StorageError: an object's name leads out of the folder.
    """
    assert isinstance(folder, UPath), folder
    for name in folder.fs.find(folder.path):
        inner = name.removeprefix(folder.path + "/")
        if name == folder.path + "/" or inner.endswith("/"):  # a marker that some programs leave for a folder
            continue
        place = target / inner
        if ".." in Path(inner).parts or Path(inner).is_absolute():
            raise StorageError(f"{folder} holds an object named {inner!r}, which is not a valid path; delete it")
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.fs.get_file(name, str(place))


def parquet_files(folder: StoragePath) -> list[StoragePath]:
    """The Parquet files directly in a folder, sorted by name; empty if there is no folder."""
    return sorted(folder.glob("*.parquet"))


def open_parquet(path: StoragePath) -> pq.ParquetFile:
    """Open a Parquet file for reading."""
    filesystem, inner = arrow(path)
    return pq.ParquetFile(inner, filesystem=filesystem)


def read_table(path: StoragePath, columns: list[str] | None = None) -> pa.Table:
    """Read the rows of one Parquet file."""
    with open_parquet(path) as file:
        return file.read(columns=columns)


def dataset(folder: StoragePath) -> pyarrow.dataset.Dataset:
    """All Parquet files of a folder as one dataset."""
    filesystem, inner = arrow(folder)
    return pyarrow.dataset.dataset(inner, format="parquet", filesystem=filesystem)


def write_table(table: pa.Table, path: StoragePath) -> None:
    """Write a Parquet file that appears whole or not at all; its folder must exist."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def write_text_atomically(path: StoragePath, text: str) -> None:
    """Replace a file's content atomically: a reader sees the old or the new, never a part."""
    write_bytes(path, text.encode())


def write_json(path: StoragePath, value: Any) -> None:
    """Write a value as indented JSON, atomically; numbers that JSON cannot represent become null."""
    write_text_atomically(path, json.dumps(nan_to_null(value), indent=2, allow_nan=False) + "\n")


def read_json_lines(path: StoragePath) -> list[dict[str, Any]]:
    """The objects of a file that has one on each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def nan_to_null(value: Any) -> Any:
    """Replace non-finite numbers in a tree by None, such as the standard error of one problem."""
    if isinstance(value, dict):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cache_folder() -> Path:
    """`$OFFSFT_HOME`, else `offsft` in the user's cache folder."""
    if home := os.environ.get("OFFSFT_HOME"):
        return Path(home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offsft"
