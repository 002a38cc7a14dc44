"""Rows come out of every usual container, told by its first bytes; what is not read is named in one sentence."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.config import DataConfig, Fields
from offsft.data.files import existing_files, read_rows
from offsft.data.formats import parse
from offsft.data.rows import RawRow, Rejected
from offsft.errors import DataError

ROWS = [{"problem": f"What is 1 + {n}?", "answer": str(n + 1), "solution": 'He said "so",\nthen ü.'} for n in range(4)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def gz(content):
    """Compressed without the time, which would differ between the workers that collect these tests."""
    return gzip.compress(content, mtime=0)


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def arrow(rows, make):
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def table_text(delimiter):
    quoted = [[f'"{row[name].replace(chr(34), chr(34) * 2)}"' for name in row] for row in ROWS]
    return "\r\n".join(delimiter.join(cells) for cells in [list(ROWS[0]), *quoted])


def read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (file,) = existing_files(DataConfig(path=str(path)), "data.path")
    return [json.loads(raw) for _, raw in read_rows(file)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", JSONL),
        ("a.jsonl", JSONL.rstrip()),
        ("bom.jsonl", "\ufeff" + JSONL.replace("\n", "\r\n")),
        ("a.json", json.dumps(ROWS)),
        ("pretty.json", json.dumps(ROWS, indent=2)),
        ("bom.json", "\ufeff \n" + json.dumps(ROWS, indent=4, ensure_ascii=False)),
        ("array.jsonl", json.dumps(ROWS)),
        ("lines.json", "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n"),
        ("objects.json", "\n".join(json.dumps(row, indent=1) for row in ROWS)),
        ("data.json", json.dumps({"version": 1, "data": ROWS})),
        ("data2.json", json.dumps({"version": 1, "examples": ROWS}, indent=2)),
        ("columns.json", json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]})),
        ("pandas.json", json.dumps({name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ROWS[0]})),
        ("a.jsonl.gz", gz(JSONL.encode())),
        ("two.jsonl.gz", gz(JSONL[: len(JSONL) // 2].encode()) + gz(JSONL[len(JSONL) // 2 :].encode())),
        ("array.json.gz", gz(json.dumps(ROWS).encode())),
        ("named_plain.jsonl", gz(JSONL.encode())),
        ("a.jsonl.zst", zstd(JSONL.encode())),
        ("a.jsonl.bz2", bz2.compress(JSONL.encode())),
        ("a.jsonl.xz", lzma.compress(JSONL.encode())),
        ("a.csv", table_text(",")),
        ("excel.csv", "\ufeff" + table_text(";")),
        ("a.tsv", table_text("\t")),
        ("a.csv.gz", gz(table_text(",").encode())),
        ("a.parquet", parquet(ROWS)),
        ("no_ending", parquet(ROWS)),
        ("named.jsonl", parquet(ROWS)),
        ("a.parquet.gz", gz(parquet(ROWS))),
        ("a.arrow", arrow(ROWS, pa.ipc.new_file)),
        ("stream.arrow", arrow(ROWS, pa.ipc.new_stream)),
        ("bytes.parquet", parquet([{name: text.encode() for name, text in row.items()} for row in ROWS])),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:20] and len(value) < 20 else "",
)  # fmt: skip
def test_the_same_rows_come_out_of_every_container(tmp_path, name, content):
    assert read(tmp_path, name, content) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer, not the file"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("a.zip", b"PK\x03\x04rest", "a ZIP archive"),
        ("a.jsonl", b"<!DOCTYPE html><html>not found</html>", "a web page"),
        ("a.xlsx", b"PK\x03\x04rest", "a ZIP archive or an Excel workbook"),
        ("a.jsonl", JSONL.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ("a.pkl", b"\x80\x04\x95rest", "a Python pickle"),
        ("a.tar", b"a" * 257 + b"ustar\0" + b"b" * 300, "a tar archive"),
        ("a.parquet", b"PAR1 but cut off here", "a broken parquet file"),
        ("a.parquet", b'{"problem": 1}\n', "not a parquet file, though it is named so"),
        ("a.bin", bytes(range(200)), "a binary file of no kind that is read"),
        ("a.tar.gz", gz(b"a" * 257 + b"ustar\0" + b"b" * 300), r"a tar archive; unpack it \(compressed"),
        ("a.db", b"SQLite format 3\0", "an SQLite database"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_in_one_sentence(tmp_path, name, content, told):
    with pytest.raises(DataError, match=f"data.path: .*{name} is {told}") as error:
        read(tmp_path, name, content)
    assert "\n" not in str(error.value)


def rejected(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (file,) = existing_files(DataConfig(path=str(path)), "data.path")
    parsed = [parse(RawRow(file, line, raw), "own", Fields(answer="answer")) for line, raw in read_rows(file)]
    return [(each.line, str(each.reason), each.detail) for each in parsed if isinstance(each, Rejected)], len(parsed)


def test_an_array_that_breaks_off_says_where(tmp_path):
    found, rows = rejected(tmp_path, "a.json", json.dumps(ROWS)[:-20])
    assert rows == 4
    ((line, reason, detail),) = found
    assert (line, reason) == (4, "bad_row")
    assert "breaks off at element 4" in detail


def test_a_row_of_a_csv_file_with_too_many_cells_is_rejected_alone(tmp_path):
    text = "problem,answer,solution\n1+1?,2,s\n1,000+1?,1001,s\n\n2+2?,4,s\n"
    found, rows = rejected(tmp_path, "a.csv", text)
    assert (found, rows) == ([(3, "bad_row", "4 cells, and the header names 3 columns")], 3)
    found, rows = rejected(tmp_path, "b.csv", 'problem,answer,solution\n1+1?,2,"open\n2+2?,4,s\n')
    assert rows == 1
    assert "not valid CSV" in found[0][2]
    found, _ = rejected(tmp_path, "c.csv", "problem,problem\n1,2\n")
    assert "names 'problem' twice" in found[0][2]


def test_bytes_that_are_not_utf8_spoil_their_row_only(tmp_path):
    found, rows = rejected(tmp_path, "a.csv", b"problem,answer,solution\n1+1?,2,s\n\xff?,2,s\n")
    assert (rows, [(line, reason) for line, reason, _ in found]) == (2, [(3, "not_utf8")])
    array = json.dumps(ROWS).encode().replace(b"1 + 2", b"1 \xff 2")
    found, rows = rejected(tmp_path, "a.json", array)
    assert (rows, [(line, reason) for line, reason, _ in found]) == (4, [(3, "not_utf8")])


def test_lines_keep_their_numbers_and_lists_stay_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"b": 2}\n[1, 2]\n')
    assert list(read_rows(str(path))) == [(1, b'{"a": 1}'), (3, b'{"b": 2}'), (4, b"[1, 2]")]
    path.write_text("[1]\n[2]\n")
    assert list(read_rows(str(path))) == [(1, b"[1]"), (2, b"[2]")]


def test_one_row_alone_is_a_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    assert read(tmp_path, "a.json", json.dumps(row)) == read(tmp_path, "b.json", json.dumps(row, indent=2)) == [row]
    assert read(tmp_path, "c.json", json.dumps(ROWS[0], indent=2)) == ROWS[:1]


def test_a_compressed_file_that_breaks_off_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"a\.gz breaks off or cannot be decoded"):
        read(tmp_path, "a.gz", gz(JSONL.encode() * 100)[:-30])


def test_a_long_array_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("offsft.data.json_files._READ_BYTES", 64)
    assert read(tmp_path, "a.json", json.dumps(ROWS * 50, indent=1)) == ROWS * 50
    assert read(tmp_path, "b.json", json.dumps(ROWS * 50, ensure_ascii=False)) == ROWS * 50
