"""Rows that could not be used, as they stood, each with its reason: Parquet files in a `quarantine/` folder."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

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


def write_rejected(folder: Path, rows: list[dict[str, Any]], name: str = "intake") -> None:
    """The rows that the intake refused; called once for a data set, or for each under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{name}.parquet", rows)


def write_poison(folder: Path, problem: str, row: dict[str, Any]) -> None:
    """One problem that is not tried again, in a file of its own: written twice, it is there once."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / f"{_POISON}{problem}.parquet", [row])


def poisoned(folder: Path) -> set[str]:
    """Ids of the problems that are not tried again."""
    return {path.stem.removeprefix(_POISON) for path in folder.glob(f"{_POISON}*.parquet")}


def reasons(folder: Path) -> Counter[str]:
    """Rows by reason."""
    if not any(folder.glob("*.parquet")):
        return Counter()
    return Counter(pyarrow.dataset.dataset(folder, format="parquet").to_table(columns=["reason"])["reason"].to_pylist())


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.partial")  # Parquet readers pass over names with a dot in front
    pq.write_table(pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA), partial)
    partial.replace(path)
