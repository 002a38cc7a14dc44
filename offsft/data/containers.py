"""Rows of one open file, whatever container its first bytes show; every row comes as JSON text with its number."""

import bz2
import csv
import io
import json
import lzma
import sys
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from offsft.data.json_files import json_rows
from offsft.data.rows import malformed
from offsft.errors import DataError

_BATCH_ROWS = 256
_HEAD_BYTES = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4", b"\xfd7zXZ\x00": "xz"}  # fmt: skip
_NOT_READ = {
    b"version https://git-lfs": "a Git LFS pointer, not the file; run `git lfs pull` where it was cloned",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it, or save it as CSV",
    b"Rar!": "a RAR archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"%PDF": "a PDF document, which holds no rows",
    b"SQLite format 3": "an SQLite database; export the table to CSV or Parquet",
    b"\x89HDF": "an HDF5 file; convert it to Parquet",
    b"ORC": "an ORC file; convert it to Parquet",
    b"Obj\x01": "an Avro file; convert it to Parquet",
    b"\x93NUMPY": "a NumPy array; convert it to JSONL",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word document; save it as CSV",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"\x80\x02": "a Python pickle, which can run code; convert it to JSONL",
    b"\x80\x03": "a Python pickle, which can run code; convert it to JSONL",
    b"\x80\x04": "a Python pickle, which can run code; convert it to JSONL",
    b"\x80\x05": "a Python pickle, which can run code; convert it to JSONL",
}
_PAGE = (b"<!doctype html", b"<html", b"<?xml")
csv.field_size_limit(sys.maxsize)


def container_of(head: bytes, path: str) -> str:
    """The kind of container: `parquet`, `arrow`, `arrow stream`, a compression, `csv`, `tsv` or `json`.

    `head` is the file's beginning. Text has no marks of its own: its ending tells CSV and TSV from JSON.
    """
    for mark, kind in ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow stream"), *_COMPRESSED.items()):  # fmt: skip
        if head.startswith(mark):
            return kind
    ending = _plain_ending(path)
    return ending if ending in ("csv", "tsv") else "json"


def why_unreadable(file: pa.NativeFile, path: str) -> str | None:
    """What the file is, in words, if it is of a kind that is not read, is broken, or is not what its ending says."""
    head = file.read(_HEAD_BYTES)
    kind = container_of(head, path)
    file.seek(0)
    try:
        if kind in _COMPRESSED.values():
            inside = _why_not_read(_decompressed(file, kind).read(_HEAD_BYTES), path)
            return inside and f"{inside} (compressed with {kind})"
        if kind in ("parquet", "arrow", "arrow stream"):
            _open_table(file, kind)
            return None
    except (pa.ArrowInvalid, OSError, EOFError, lzma.LZMAError) as error:
        return f"a broken {kind} file, perhaps not downloaded whole: {' '.join(str(error).split())[:120]}"
    return _why_not_read(head, path)


def _why_not_read(head: bytes, path: str) -> str | None:
    for mark, name in _NOT_READ.items():
        if head.startswith(mark):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    if head.lstrip()[:16].lower().startswith(_PAGE):
        return "a web page or XML, not data; was a link's page downloaded instead of the file?"
    ending = _plain_ending(path)
    if container_of(head, path) == "json" and ending in ("parquet", "pq", "arrow", "feather"):
        return f"not a {ending} file, though it is named so; download it again"
    if b"\0" in head and container_of(head, path) in ("json", "csv", "tsv"):
        return "a binary file of no kind that is read; give JSONL, JSON, CSV, TSV, Parquet or Arrow"
    return None


def numbered_rows(file: pa.NativeFile, path: str) -> Iterator[tuple[int, bytes]]:
    """Rows of an open file as JSON, numbered from 1: by their line in JSONL and CSV, else by their order.

    Raises:
        DataError: the file ends early or cannot be decoded.
    """
    kind = container_of(file.read(_HEAD_BYTES), path)
    file.seek(0)
    try:
        if kind in _COMPRESSED.values():
            yield from _text_rows(io.BufferedReader(_decompressed(file, kind)), path)
        elif kind == "json" or kind in ("csv", "tsv"):
            yield from _text_rows(file, path)
        else:
            yield from _table_rows(file, kind)
    except (pa.ArrowInvalid, OSError, EOFError, lzma.LZMAError, UnicodeError) as error:
        raise DataError(
            f"{path} breaks off or cannot be decoded ({kind}): {' '.join(str(error).split())[:160]}"
        ) from None


def _plain_ending(path: str) -> str:
    """The ending of a file's name in lower case, without that of a compression: `csv` of `a.CSV.gz`."""
    parts = path.lower().rsplit("/", 1)[-1].split(".")
    while len(parts) > 1 and parts[-1] in ("gz", "gzip", "zst", "zstd", "bz2", "lz4", "xz"):
        parts.pop()
    return parts[-1] if len(parts) > 1 else ""


def _decompressed(file: pa.NativeFile, kind: str) -> Any:
    if kind == "xz":
        return lzma.LZMAFile(file)
    if kind == "bz2":
        return bz2.BZ2File(file)
    return pa.CompressedInputStream(file, kind)


def _text_rows(file: Any, path: str) -> Iterator[tuple[int, bytes]]:
    """Rows of JSON or CSV text; of a compressed Parquet or Arrow file too, which is then held in memory."""
    head = file.peek(_HEAD_BYTES)[:_HEAD_BYTES] if isinstance(file, io.BufferedReader) else b""
    kind = container_of(head, path)
    if kind in ("parquet", "arrow", "arrow stream"):
        yield from _table_rows(pa.BufferReader(file.read()), kind)
    elif kind in ("csv", "tsv"):
        yield from _csv_rows(file, kind)
    else:
        yield from json_rows(file, is_document=_plain_ending(path) == "json")


def _open_table(file: Any, kind: str) -> Any:
    if kind == "parquet":
        return pq.ParquetFile(file)
    return pyarrow.ipc.open_file(file) if kind == "arrow" else pyarrow.ipc.open_stream(file)


def _table_rows(file: Any, kind: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    for batch in _record_batches(_open_table(file, kind)):
        for first in range(0, batch.num_rows, _BATCH_ROWS):
            for row in batch.slice(first, _BATCH_ROWS).to_pylist():
                number += 1
                yield number, _as_json(row)


def _record_batches(table: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(table, pq.ParquetFile):
        yield from table.iter_batches(batch_size=_BATCH_ROWS)
    elif isinstance(table, pa.RecordBatchFileReader):
        yield from (table.get_batch(number) for number in range(table.num_record_batches))
    else:
        yield from table


def _csv_rows(file: IO[bytes], kind: str) -> Iterator[tuple[int, bytes]]:
    """Rows of CSV or TSV with a header; each is numbered by the line that it begins on."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    header = text.readline()
    delimiter = "\t" if kind == "tsv" or ("\t" in header and "," not in header) else ","
    delimiter = ";" if delimiter not in header and ";" in header else delimiter
    names = next(csv.reader([header], delimiter=delimiter), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield 1, malformed(f"the header names {', '.join(map(repr, twice))} twice; name each column once")
        return
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, malformed(f"not valid CSV: {error}; nothing behind it is read")
            return
        if len(cells) == len(names):
            yield line, _as_json(dict(zip(names, cells, strict=True)))
        elif cells:
            yield line, malformed(f"{len(cells)} cells, and the header names {len(names)} columns")


def _as_json(row: dict[str, Any]) -> bytes:
    # Bytes of a text file that are not UTF-8 come back as they were, for the row to be rejected.
    return json.dumps(row, default=_plain, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _plain(value: Any) -> str:
    """Values that JSON lacks: text stored as bytes, dates, decimals."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
