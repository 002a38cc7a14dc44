"""Intake: problem files in, valid problems and a quarantine of bad rows out.

Ray Data reads and parses; the driver drops duplicates, stops at the limit and writes `problems/` in shards of the
size that the rewriting commits. The folder appears whole or not at all.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray.data
from ray.data.datasource.file_based_datasource import FileBasedDatasource

from offsft.config import Domain, Fields, Prompt
from offsft.contamination import Overlap
from offsft.errors import DataError
from offsft.problem_files import existing_files, numbered_rows
from offsft.problems import RawRow, Reason, Rejected, parse
from offsft.prompts import load_prompts
from offsft.quarantine import QUARANTINE_SCHEMA, write_rejected
from offsft.rewrite.tables import PROBLEM_SCHEMA
from offsft.storage import StoragePath, arrow, at, filling, is_url, write_table

if TYPE_CHECKING:
    from ray.data.block import Block

_BATCH_ROWS = 256
_PARSED_SCHEMA = pa.schema(
    [*PROBLEM_SCHEMA, *(field for field in QUARANTINE_SCHEMA if field.name not in PROBLEM_SCHEMA.names)]
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where problems are and how their rows are read; see `offsft.config.Data`. `setting` names `paths` in errors.

    Problems that hold one of `excluded` are rejected.
    """

    setting: str
    paths: list[str]
    format: str
    fields: Fields
    limit: int | None
    domain: Domain = "math"
    excluded: Overlap | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What a problem must fit into: the plain prompt with `response_tokens`, and with the expert's response."""

    model: str
    revision: str | None
    prompt: Prompt
    context_tokens: int
    response_tokens: int


def take_in(
    source: Source, room: Room, *, problems: StoragePath, quarantine: StoragePath, shard_rows: int
) -> Counter[str]:
    """Read the source, write `problems/` and `quarantine/`, and return the number of rows for each reason.

    Raises:
        DataError: the source is missing, empty, or holds not one valid row.
    """
    files = existing_files(source.paths, source.setting)
    if len({is_url(file) for file in files}) > 1:
        raise DataError(
            f"{source.setting}={', '.join(source.paths)} is partly on a disk and partly on S3; give one kind"
        )
    reasons: Counter[str] = Counter()
    rejected: list[dict[str, Any]] = []
    shard: list[dict[str, Any]] = []
    shards = 0
    with filling(problems) as writing:
        for row in _accepted_and_rejected(source, room, files):
            if row["reason"] is not None:
                reasons[row["reason"]] += 1
                rejected.append(row)
                continue
            shard.append(row)
            if len(shard) == shard_rows:
                _write(shard, writing / f"problems-{shards:06d}.parquet")
                shards, shard = shards + 1, []
        if shard:
            _write(shard, writing / f"problems-{shards:06d}.parquet")
            shards += 1
        if rejected:
            write_rejected(quarantine, rejected)
        if not shards:
            raise DataError(_nothing_valid(source, reasons, rejected))
    return reasons


def _accepted_and_rejected(source: Source, room: Room, files: list[str]) -> Iterator[dict[str, Any]]:
    """Parsed rows in file order, duplicates rejected, ending at the limit of accepted ones."""
    seen: set[bytes] = set()
    dataset = ray.data.read_datasource(ProblemFiles(files), override_num_blocks=len(files)).map_batches(
        ParseProblems,  # type: ignore[arg-type]  # Ray's annotation knows functions only
        fn_constructor_args=(source.format, source.fields, source.domain, room),
        batch_format="pyarrow",
        batch_size=_BATCH_ROWS,
        compute=ray.data.ActorPoolStrategy(size=1),
        zero_copy_batch=True,
    )
    dataset.set_name("intake")
    dataset.context.execution_options.preserve_order = True
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=_BATCH_ROWS):
        rows = pa.table(batch).to_pylist()
        texts = [row["problem"] or "" for row in rows]
        matches = source.excluded.match(texts) if source.excluded else [None] * len(rows)
        for row, match in zip(rows, matches, strict=True):
            if row["reason"] is None and match is not None:
                detail = f"it holds {match.share:.0%} of the word sequences of {match.problem} (data.exclude_suites)"
                row |= {"reason": str(Reason.CONTAMINATED), "detail": detail, "raw": row["problem"]}
            if row["reason"] is None:
                key = bytes.fromhex(row["id"])
                if key in seen:
                    row |= {"reason": str(Reason.DUPLICATE), "detail": f"the same problem as id {row['id']} before it"}
                seen.add(key)
            yield row
            if source.limit is not None and len(seen) == source.limit:
                return


class ProblemFiles(FileBasedDatasource):
    """Lines of JSONL files and rows of Parquet files as (file, line, raw JSON); no byte of them is judged here."""

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
    """Raw rows to problems or to rejections with a reason; both in one table, told apart by `reason`."""

    def __init__(self, fmt: str, fields: Fields, domain: Domain, room: Room) -> None:
        self._format = fmt
        self._fields = fields
        self._domain: Domain = domain
        self._room = room
        self._prompts = load_prompts(room.model, room.revision, room.prompt)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._row(raw) for raw in batch.to_pylist()], schema=_PARSED_SCHEMA)

    def _row(self, raw: dict[str, Any]) -> dict[str, Any]:
        parsed = parse(RawRow(raw["file"], raw["line"], raw["raw"]), self._format, self._fields, self._domain)
        if isinstance(parsed, Rejected):
            return {
                "file": parsed.file,
                "line": parsed.line,
                "reason": str(parsed.reason),
                "detail": parsed.detail,
                "raw": parsed.raw,
            }
        row = {
            "id": parsed.id,
            "problem": parsed.problem,
            "solution": parsed.solution,
            "answer": parsed.answer,
            "check": parsed.check_text,
            "file": raw["file"],
            "line": raw["line"],
            "raw": None,
            "reason": None,
        }
        prompt = len(self._prompts.plain(parsed))
        expert = len(self._prompts.response(parsed.solution))
        needed, limit = prompt + max(self._room.response_tokens, expert), self._room.context_tokens
        if needed > limit:
            row["reason"] = str(Reason.TOO_LONG)
            row["detail"] = (
                f"the prompt has {prompt} tokens, the expert's solution {expert}, and"
                f" rewrite.max_tokens={self._room.response_tokens}; model.context_tokens={limit} would have to be {needed}"
            )
            row["raw"] = raw["raw"].decode("utf-8", "replace")
        return row


def _raw_block(rows: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([("file", pa.string()), ("line", pa.int64()), ("raw", pa.binary())])
    return pa.Table.from_pylist(rows, schema=schema)


def _write(rows: list[dict[str, Any]], path: StoragePath) -> None:
    write_table(pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA), path)


def _nothing_valid(source: Source, reasons: Counter[str], rejected: list[dict[str, Any]]) -> str:
    where = ", ".join(source.paths)
    if not rejected:
        return f"{source.setting}={where} holds no rows; it should hold one problem a line (JSONL) or a row (Parquet)"
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    first = rejected[0]
    return (
        f"not one of {len(rejected)} rows of {source.setting}={where} is a valid problem ({counts}); the first,"
        f" {first['file']}:{first['line']}: {first['detail']}"
    )
