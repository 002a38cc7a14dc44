"""Unusable rows, unchanged and each with its reason: Parquet files in a `quarantine/` folder."""

import json
from collections import Counter
from typing import Any

import pyarrow as pa

from offsft.data.rows import Reason
from offsft.storage.paths import StoragePath, dataset, make, parquet_files, read_table, write_table

QUARANTINE_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.string()),
    ]
)
_POISON = "poison-"


def write_rejected(folder: StoragePath, rows: list[dict[str, Any]], name: str = "intake") -> None:
    """Write the rows that the intake refused; called once for a data set, or per data set under its own name."""
    make(folder)
    _write(folder / f"{name}.parquet", rows)


def add_rejected(folder: StoragePath, rows: list[dict[str, Any]], name: str = "intake") -> None:
    """Add rows that the intake refused to those that it refused before, without repeating any."""
    path = folder / f"{name}.parquet"
    before = read_table(path).to_pylist() if path.exists() else []
    known = {_identity(row) for row in before}
    fresh = [row for row in rows if _identity(row) not in known]
    if fresh:
        write_rejected(folder, before + fresh, name)


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    """A row's identity: its text, wherever it is; its place if it was refused without its text, as a duplicate is."""
    return (row["reason"], row["raw"]) if row["raw"] is not None else (row["reason"], row["file"], row["line"])


def write_poison(folder: StoragePath, problem: str, row: dict[str, Any]) -> None:
    """Write a problem that is not tried again to a separate file: written twice, it is there once."""
    make(folder)
    _write(folder / f"{_POISON}{problem}.parquet", [row])


def poison_line(row: dict[str, Any], tries: int) -> dict[str, Any]:
    """The quarantine's row of a problem that killed its engine `tries` times."""
    detail = (
        f"the engine died {tries} times while this problem ran alone (engine.poison_tries); the engine's own reason is in"
        " logs/ of the run's folder"
    )
    raw = json.dumps({key: row[key] for key in ("problem", "solution", "answer") if key in row})
    place = {"file": row.get("file"), "line": row.get("line")}
    return place | {"reason": str(Reason.POISON), "detail": detail, "raw": raw}


def poison_ids(folder: StoragePath) -> set[str]:
    """Ids of the problems that are not tried again."""
    return {path.stem.removeprefix(_POISON) for path in folder.glob(f"{_POISON}*.parquet")}


def reasons(folder: StoragePath) -> Counter[str]:
    """The number of rows per reason."""
    if not parquet_files(folder):
        return Counter()
    return Counter(dataset(folder).to_table(columns=["reason"])["reason"].to_pylist())


def _write(path: StoragePath, rows: list[dict[str, Any]]) -> None:
    write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA), path)
