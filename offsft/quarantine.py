"""Rows that could not be used, as they stood, each with its reason: Parquet files in a `quarantine/` folder."""

from collections import Counter
from typing import Any

import pyarrow as pa

from offsft.storage import StoragePath, dataset, make, parquet_files, write_table

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
    """The rows that the intake refused; called once for a data set, or for each under its own name."""
    make(folder)
    _write(folder / f"{name}.parquet", rows)


def write_poison(folder: StoragePath, problem: str, row: dict[str, Any]) -> None:
    """One problem that is not tried again, in a file of its own: written twice, it is there once."""
    make(folder)
    _write(folder / f"{_POISON}{problem}.parquet", [row])


def poisoned(folder: StoragePath) -> set[str]:
    """Ids of the problems that are not tried again."""
    return {path.stem.removeprefix(_POISON) for path in folder.glob(f"{_POISON}*.parquet")}


def reasons(folder: StoragePath) -> Counter[str]:
    """Rows by reason."""
    if not parquet_files(folder):
        return Counter()
    return Counter(dataset(folder).to_table(columns=["reason"])["reason"].to_pylist())


def _write(path: StoragePath, rows: list[dict[str, Any]]) -> None:
    write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA), path)
