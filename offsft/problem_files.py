"""The files behind `data.path` and `evaluate.path` (local or s3://, a file, a folder, or a list) and their rows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from offsft.errors import DataError
from offsft.storage import arrow, at, is_url
from offsft.storage_fault import check_reachable

_READ_BYTES = 1 << 20
_BATCH_ROWS = 256


def existing_files(paths: list[str], setting: str) -> list[str]:
    """All files behind the paths that are not empty, folders expanded, in order.

    Raises:
        DataError: one is missing, empty or cannot be read; named by its `setting` (`data.path`).
    """
    files: list[str] = []
    if len({is_url(path) for path in paths}) > 1:
        raise DataError(f"{setting} names files on a disk and on S3; put all in one place")
    for path in paths:
        place = at(path, setting)
        check_reachable(place, setting)
        prefix = "s3://" if is_url(path) else ""
        filesystem, inner = arrow(place.resolve() if isinstance(place, Path) else place)
        try:
            info = filesystem.get_file_info(inner)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{setting}={path} cannot be read: {error}") from None
        if info.type is pyarrow.fs.FileType.File:
            found = [info]
        elif info.type is pyarrow.fs.FileType.Directory:
            selector = pyarrow.fs.FileSelector(inner, recursive=True)
            found = [f for f in filesystem.get_file_info(selector) if f.type is pyarrow.fs.FileType.File]
        else:
            raise DataError(f"{setting}={path} does not exist; give a JSONL or Parquet file, or a folder of them")
        if not any(f.size for f in found):
            raise DataError(f"{setting}={path} is empty; it should hold one problem a line (JSONL) or a row (Parquet)")
        files.extend(prefix + f.path for f in sorted(found, key=lambda f: f.path) if f.size)
    return files


def numbered_rows(file: pa.NativeFile, path: str) -> Iterator[tuple[int, bytes]]:
    """Rows of an open file as JSON, numbered from 1: those of a Parquet file, or the lines of any other."""
    return _parquet_rows(file) if path.endswith((".parquet", ".pq")) else _lines(file)


def _lines(f: pa.NativeFile) -> Iterator[tuple[int, bytes]]:
    """Numbered lines (from 1) of a file of any size, without the blank ones."""
    rest, number = b"", 0
    while chunk := f.read(_READ_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line
    if rest.strip():
        yield number + 1, rest


def _parquet_rows(f: pa.NativeFile) -> Iterator[tuple[int, bytes]]:
    number = 0
    for batch in pq.ParquetFile(f).iter_batches(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            number += 1
            yield number, json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")


def read_rows(path: str) -> Iterator[tuple[int, bytes]]:
    """The numbered rows of one of `existing_files`."""
    filesystem, inner = arrow(at(path))
    with filesystem.open_input_file(inner) as file:
        yield from numbered_rows(file, path)
