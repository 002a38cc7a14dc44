"""Where runs, problems and models lie: folders on a disk, or s3:// URLs, behind one kind of path.

A disk has paths of `pathlib`, S3 those of `upath`, which look alike; the functions here are where the two differ. S3 has
no folders and renames nothing, but a file appears there whole or not at all.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
from upath import UPath

from offsft import s3
from offsft.errors import ConfigError, StorageError

StoragePath = Path | UPath
WHOLE = "_complete"
"""Name of the file that is put last into a folder on S3 whose own files do not tell that it is whole."""


def is_url(path: str) -> bool:
    """Whether a path is an URL rather than a path on a disk."""
    return "://" in path


def at(path: str, setting: str = "run") -> StoragePath:
    """The path of a text; that on a disk is left as it is written.

    Raises:
        ConfigError: it is an URL, but not of S3; named by its `setting`.
    """
    if not is_url(path):
        return Path(path)
    bucket = path.removeprefix("s3://").split("/")[0]
    if not path.startswith("s3://") or not bucket:
        raise ConfigError(
            f"{setting}={path} is no place that is known here; give a path on a disk, or s3://bucket/path"
        )
    return s3.path_of(path)


def is_folder(model: str) -> bool:
    """Whether a model is a folder or an URL, and not a name at Hugging Face, which alone has revisions."""
    return is_url(model) or Path(model).exists()


def arrow(path: StoragePath) -> tuple[pyarrow.fs.FileSystem, str]:
    """pyarrow's file system of a path, and the path in it."""
    if isinstance(path, UPath):
        return s3.S3(), path.path
    return pyarrow.fs.LocalFileSystem(), str(path)


def make(folder: StoragePath) -> None:
    """Make a folder and those above it; S3 needs none, and a bucket is never made."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def remove(folder: StoragePath) -> None:
    """Delete a folder with all that is in it, if it is there."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)


def write_bytes(path: StoragePath, content: bytes) -> None:
    """Replace a file's content so that a reader sees the old or the new, never a part."""
    if isinstance(path, UPath):
        path.fs.pipe_file(path.path, content)
        return
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def filling(folder: StoragePath, last: str = WHOLE) -> Iterator[Path]:
    """A local folder to write into, whose files are in `folder` once the block has ended well, in place of what was there.

    On a disk the folder appears by a rename. On S3 its file `last` is the first to go and the last to come.
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
    """Whether what was written by `filling` is there, and whole."""
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
        StorageError: the name of one leads out of the folder.
    """
    assert isinstance(folder, UPath), folder
    for name in folder.fs.find(folder.path):
        inner = name.removeprefix(folder.path + "/")
        if name == folder.path + "/" or inner.endswith("/"):  # what some programs leave to mark a folder
            continue
        place = target / inner
        if ".." in Path(inner).parts or Path(inner).is_absolute():
            raise StorageError(f"{folder} holds an object named {inner!r}, which is no path; delete it")
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.fs.get_file(name, str(place))


def parquet_files(folder: StoragePath) -> list[StoragePath]:
    """The Parquet files right in a folder, by name; none where there is no folder."""
    return sorted(folder.glob("*.parquet"))


def open_parquet(path: StoragePath) -> pq.ParquetFile:
    """One Parquet file to read from."""
    filesystem, inner = arrow(path)
    return pq.ParquetFile(inner, filesystem=filesystem)


def read_table(path: StoragePath, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file's rows."""
    with open_parquet(path) as file:
        return file.read(columns=columns)


def dataset(folder: StoragePath) -> pyarrow.dataset.Dataset:
    """All Parquet files of a folder."""
    filesystem, inner = arrow(folder)
    return pyarrow.dataset.dataset(inner, format="parquet", filesystem=filesystem)


def write_table(table: pa.Table, path: StoragePath) -> None:
    """A Parquet file that appears whole or not at all; its folder must be there."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())
