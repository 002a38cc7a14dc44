"""Intake: turn problem files into valid problems and a quarantine of bad rows.

Ray Data reads and parses; the driver drops duplicates, stops at the limit and writes `problems/` in shards of the
size that rewriting commits. The folder appears whole or not at all.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray.data
from ray.data.datasource.file_based_datasource import FileBasedDatasource

from offsft.config import Domain, Fields, ProblemRows, Recipe
from offsft.data.containers import numbered_rows
from offsft.data.files import existing_files
from offsft.data.overlap import Overlap
from offsft.data.quarantine import QUARANTINE_SCHEMA, add_rejected, write_rejected
from offsft.data.reader import RowReader
from offsft.data.rows import RawRow
from offsft.data.sifting import ProblemSource, Room, parsed_row, sift
from offsft.data.tables import PROBLEM_SCHEMA
from offsft.demo.problems import Split
from offsft.errors import ConfigError, DataError
from offsft.runtime.placement import reading_here
from offsft.storage.paths import StoragePath, arrow, at, filling, is_url, parquet_files, read_table, write_table

if TYPE_CHECKING:
    from ray.data.block import Block

_BATCH_ROWS = 256
_PARSED_SCHEMA = pa.schema(
    [*PROBLEM_SCHEMA, *(field for field in QUARANTINE_SCHEMA if field.name not in PROBLEM_SCHEMA.names)]
)


def take_in(
    source: ProblemSource, room: Room, *, problems: StoragePath, quarantine: StoragePath, shard_rows: int
) -> Counter[str]:
    """Read the source, write `problems/` and `quarantine/`, and return the number of rows for each reason.

    Raises:
        DataError: the source is missing or empty, or holds no valid row.
    """
    files = existing_files(source.rows, source.setting)
    with filling(problems) as writing:
        sorted_rows = _write_shards(_sort_rows(source, room, files), writing, shard_rows)
        if sorted_rows.rejected:
            write_rejected(quarantine, sorted_rows.rejected)
        if not sorted_rows.accepted:
            raise DataError(_nothing_valid(source, sorted_rows.reasons, sorted_rows.rejected))
    return sorted_rows.reasons


def add_new(
    source: ProblemSource, room: Room, *, problems: StoragePath, quarantine: StoragePath, shard_rows: int
) -> tuple[int, Counter[str]]:
    """Add the source's new problems to `problems/`, and return their number and the reasons for refused rows.

    It works shard by shard: an interrupted call is completed by the next one, which finds the problems already added.

    Raises:
        ConfigError: the source does not exist.
        DataError: it is empty.
    """
    shards = parquet_files(problems)
    known = {bytes.fromhex(each) for path in shards for each in read_table(path, ["id"])["id"].to_pylist()}
    rows = _sort_rows(source, room, existing_files(source.rows, source.setting), known)
    sorted_rows = _write_shards(
        rows, problems, shard_rows, 1 + max(int(path.stem.rpartition("-")[2]) for path in shards)
    )
    add_rejected(quarantine, sorted_rows.rejected)
    return sorted_rows.accepted, sorted_rows.reasons


@dataclass(slots=True)
class _SortedRows:
    """The number of accepted rows, and the rejected rows."""

    accepted: int
    rejected: list[dict[str, Any]]

    @property
    def reasons(self) -> Counter[str]:
        return Counter(row["reason"] for row in self.rejected)


def _write_shards(rows: Iterator[dict[str, Any]], folder: StoragePath, shard_rows: int, number: int = 0) -> _SortedRows:
    """Write accepted rows in shards of `shard_rows` rows, numbered from `number`."""
    found = _SortedRows(0, [])
    shard: list[dict[str, Any]] = []
    for row in rows:
        if row["reason"] is not None:
            found.rejected.append(row)
            continue
        found.accepted += 1
        shard.append(row)
        if len(shard) == shard_rows:
            _write(shard, folder / f"problems-{number:06d}.parquet")
            number, shard = number + 1, []
    if shard:
        _write(shard, folder / f"problems-{number:06d}.parquet")
    return found


def _sort_rows(
    source: ProblemSource, room: Room, files: list[str], known: Collection[bytes] = ()
) -> Iterator[dict[str, Any]]:
    """Parsed rows in file order, without those whose ids are `known`, ending at the limit of accepted ones.

    Duplicates of an earlier row are rejected.
    """
    dataset = ray.data.read_datasource(
        ProblemFiles(files), override_num_blocks=len(files), **({} if is_url(files[0]) else reading_here())
    ).map_batches(
        ParseProblems,  # type: ignore[arg-type]  # Ray's annotation knows functions only
        fn_constructor_args=(source.reader(files), room),
        batch_format="pyarrow",
        batch_size=_BATCH_ROWS,
        compute=ray.data.ActorPoolStrategy(size=1),
        zero_copy_batch=True,
    )
    dataset.set_name("intake")
    dataset.context.execution_options.preserve_order = True
    # The cluster may be full for longer than the half hour after which Ray Data gives up.
    dataset.context.execution_no_progress_timeout_s = -1
    batches = dataset.iter_batches(batch_format="pyarrow", batch_size=_BATCH_ROWS)
    yield from sift((pa.table(batch).to_pylist() for batch in batches), source, known)


class ProblemFiles(FileBasedDatasource):
    """Lines of JSONL files and rows of Parquet files as (file, line, raw JSON); nothing is validated here."""

    _FILE_EXTENSIONS = None

    def __init__(self, files: list[str]) -> None:
        super().__init__(files, filesystem=arrow(at(files[0]))[0])
        self._scheme = "s3://" if is_url(files[0]) else ""

    def _open_input_source(self, filesystem: Any, path: str, **_: Any) -> pa.NativeFile:
        return filesystem.open_input_file(path)

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator["Block"]:
        block: list[dict[str, Any]] = []
        for number, raw in numbered_rows(f, path):
            block.append({"file": self._scheme + path, "line": number, "raw": raw})
            if len(block) == _BATCH_ROWS:
                yield _raw_block(block)
                block = []
        if block:
            yield _raw_block(block)


class ParseProblems:
    """Parse raw rows into problems or rejections, both in one table and distinguished by `reason`."""

    def __init__(self, reader: RowReader, room: Room) -> None:
        self._reader = reader
        self._room = room

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [parsed_row(RawRow(**raw), self._reader, self._room) for raw in batch.to_pylist()]
        return pa.Table.from_pylist(rows, schema=_PARSED_SCHEMA)


def _raw_block(rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([("file", pa.string()), ("line", pa.int64()), ("raw", pa.binary())])
    return pa.Table.from_pylist(rows, schema=schema)


def _write(rows: list[dict[str, Any]], path: StoragePath) -> None:
    write_table(pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA), path)


def _nothing_valid(source: ProblemSource, reasons: Counter[str], rejected: list[dict[str, Any]]) -> str:
    where = ", ".join(source.rows.paths)
    if not rejected:
        return f"{source.setting}={where} holds no rows; it should hold one problem a line (JSONL) or a row (Parquet)"
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    first = rejected[0]
    return (
        f"not one of {len(rejected)} rows of {source.setting}={where} is a valid problem ({counts}); the first,"
        f" {first['file']}:{first['line']}: {first['detail']}"
    )


def problem_source(
    settings: ProblemRows, setting: str, generated: StoragePath, domain: Domain, excluded: Overlap | None = None
) -> ProblemSource:
    """The source of the rows: the recipe's paths, or the file of generated problems."""
    if settings.path == "generated":
        fields = Fields(tests="tests") if domain == "code" else settings.fields
        known = {"path": str(generated), "split": None, "files": [], "format": "own", "fields": fields}
        settings = settings.model_copy(update=known)
    return ProblemSource(setting, settings, domain, excluded)


def write_generated(path: StoragePath, n: int, split: Split, recipe: Recipe) -> None:
    """Write generated problems of the recipe's domain; they exist for mathematics and code."""
    from offsft.demo.code_problems import generate_code
    from offsft.demo.problems import generate, write_jsonl

    if recipe.domain not in ("math", "code"):
        raise ConfigError(f"domain={recipe.domain} has no generated problems; set data.path and evaluate.path to files")
    make = generate_code if recipe.domain == "code" else generate
    write_jsonl(path, make(n, split=split, seed=recipe.data.generated_seed))


def quarantine_note(refused: Counter[str]) -> str:
    """`, 3 rows quarantined (2 duplicate, 1 bad_json)`, or an empty text."""
    if not refused:
        return ""
    return f", {refused.total()} rows quarantined ({', '.join(f'{n} {reason}' for reason, n in refused.most_common())})"
