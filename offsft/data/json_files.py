"""Rows of JSON text: one object a line, an array of objects, objects over several lines, or one object of columns."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from offsft.data.rows import malformed

_READ_BYTES = 1 << 20
_GAP = re.compile(r"[\s,]*")
_LISTS = ("data", "rows", "examples", "instances", "problems", "questions", "items", "samples", "records", "train", "test", "validation", "dev")  # fmt: skip
"""Names under which files keep their rows in one object."""


def json_rows(file: Any, *, is_document: bool) -> Iterator[tuple[int, bytes]]:
    """Rows of an open file, numbered from 1: by line if each line holds one, else by their order.

    `is_document` says that the file is named as one JSON document: a single object on one line may then hold all rows.
    """
    first = b""
    while not first.strip() and (chunk := file.read(_READ_BYTES)):
        first += chunk
    begun = first.removeprefix(codecs.BOM_UTF8).lstrip()
    line = begun.partition(b"\n")[0].rstrip()
    if begun.startswith(b"[") and not _is_row(line, begun):
        yield from _array_rows(_texts(begun, file))
    elif begun.startswith(b"{") and (line.endswith((b"{", b",", b"[", b":")) or (is_document and _is_alone(line, begun, file))):  # fmt: skip
        yield from _document_rows("".join(_texts(begun, file)))
    else:
        yield from _lines(first, file)


def _is_row(line: bytes, begun: bytes) -> bool:
    """Whether a line that begins with a bracket is one of several rows, each a list, and not an array of rows."""
    rest = begun[len(line) :].lstrip()
    return line.endswith(b"]") and rest.startswith(b"[")


def _is_alone(line: bytes, begun: bytes, file: Any) -> bool:
    """Whether the line is the whole file; a file of one long line is not read further to find out."""
    return line.endswith(b"}") and not begun[len(line) :].strip() and len(begun) < _READ_BYTES


def _lines(first: bytes, file: Any) -> Iterator[tuple[int, bytes]]:
    """Numbered lines (from 1) of a file of any size, without the blank ones."""
    rest, number, chunk = b"", 0, first
    while chunk:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            if line.strip():
                yield number, line
        chunk = file.read(_READ_BYTES)
    if rest.strip():
        yield number + 1, rest


def _texts(begun: bytes, file: Any) -> Iterator[str]:
    """The text of the file in pieces; bytes that are not UTF-8 become what `surrogateescape` can turn back."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    yield decoder.decode(begun)
    while chunk := file.read(_READ_BYTES):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _array_rows(pieces: Iterator[str]) -> Iterator[tuple[int, bytes]]:
    """The elements of an array, one at a time, so that an array of any size takes the memory of a piece."""
    text, at, number = next(pieces)[1:], 0, 0
    decoder = json.JSONDecoder()
    while True:
        at = _end_of_gap(text, at)
        if text.startswith("]", at):
            rest = (text[at + 1 :] + "".join(pieces)).strip()
            if rest:
                yield number + 1, malformed(f"text behind the end of the array, from {rest[:40]!r}; it is not read")
            return
        try:
            _, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            piece = _more(pieces, len(text) - at)
            if piece:
                text, at = text[at:] + piece, 0
                continue
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            detail = f"the array breaks off at element {number + 1}: {what}; nothing behind it is read"
            yield number + 1, malformed(detail)
            return
        number += 1
        yield number, text[at:end].encode("utf-8", "surrogateescape")
        at = end
        if at > _READ_BYTES:
            text, at = text[at:], 0


def _end_of_gap(text: str, at: int) -> int:
    """The place behind white space and commas."""
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _more(pieces: Iterator[str], characters: int) -> str:
    """The next pieces of at least this length: doubling, so that a long element is tried a few times only."""
    found = ""
    for piece in pieces:
        found += piece
        if len(found) >= characters and found:
            break
    return found


def _document_rows(text: str) -> Iterator[tuple[int, bytes]]:
    """The rows of one object, or of several objects over several lines."""
    decoder = json.JSONDecoder()
    values: list[Any] = []
    at = 0
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError, ValueError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            yield len(values) + 1, malformed(f"not valid JSON: {what} in object {len(values) + 1}; nothing behind it is read")  # fmt: skip
            return
        values.append(value)
        at = _end_of_gap(text, end)
    rows = _rows_of(values[0]) if len(values) == 1 else values
    for number, row in enumerate(rows, start=1):
        yield number, json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _rows_of(tree: Any) -> list[Any]:
    """The rows in one object: those under a known name, those of its columns, or the object itself."""
    if not isinstance(tree, dict):
        return [tree]
    lists = [name for name in _LISTS if isinstance(tree.get(name), list)]
    if lists:
        return tree[lists[0]] if len(lists) == 1 else [_several(lists)]
    columns = list(tree.values())
    if columns and all(isinstance(column, dict) and column.keys() == columns[0].keys() and "0" in column for column in columns):  # fmt: skip
        return [{name: tree[name][key] for name in tree} for key in columns[0]]
    if columns and all(isinstance(column, list) and len(column) == len(columns[0]) and not _is_turn(column) for column in columns):  # fmt: skip
        return [dict(zip(tree, row, strict=True)) for row in zip(*columns, strict=True)]
    return [tree]


def _several(lists: list[str]) -> Any:
    return json.loads(malformed(f"the file holds the lists {', '.join(lists)}; write the one to be read to a file"))


def _is_turn(column: list[Any]) -> bool:
    return bool(column) and isinstance(column[0], dict)
