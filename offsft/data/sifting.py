"""Sort parsed rows into problems and rejections: what fits the context, what is new, what no benchmark holds."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from offsft.config import Domain, ProblemRows
from offsft.data.overlap import Overlap
from offsft.data.reader import RowReader, find_reader
from offsft.data.rows import RawRow, Reason, Rejected
from offsft.prompts import Prompts
from offsft.records import Problem


@dataclass(frozen=True, slots=True)
class ProblemSource:
    """The location of problems and the format of their rows, as the section `rows` says.

    `setting` names its path in errors. Problems that contain one of `excluded` are rejected.
    """

    setting: str
    rows: ProblemRows
    domain: Domain = "math"
    excluded: Overlap | None = None

    @property
    def held_out(self) -> bool:
        """Whether the problems are only evaluated on, so that they need no solution."""
        return self.setting == "evaluate.path"

    def reader(self, files: list[str]) -> RowReader:
        """How the rows of the source's files are read."""
        return find_reader(self.rows, files, self.domain, held_out=self.held_out, setting=self.setting)


@dataclass(frozen=True, slots=True)
class Room:
    """The space that a problem must fit in: its plain prompt with `response_tokens`, and with the expert's response."""

    prompts: Prompts
    context_tokens: int
    response_tokens: int

    def tokens(self, problem: Problem) -> tuple[int, int]:
        """Tokens of the plain prompt and of the expert's solution as a response."""
        return len(self.prompts.plain(problem)), len(self.prompts.response(problem.solution))

    def why_too_long(self, prompt: int, expert: int) -> str | None:
        """Why a problem of these lengths has no room; None if it has."""
        needed, limit = prompt + max(self.response_tokens, expert), self.context_tokens
        if needed <= limit:
            return None
        return (
            f"the prompt has {prompt} tokens, the expert's solution {expert}, and"
            f" rewrite.max_tokens={self.response_tokens}; together {needed}, and a row has room for {limit} (model.context_tokens)"
        )


def parsed_row(row: RawRow, reader: RowReader, room: Room | None) -> dict[str, Any]:
    """A raw row as one of the tables `problems/` and `quarantine/` together; `reason` is null for a problem.

    `tokens` has the lengths that were measured; without a `room` none is too long.
    """
    parsed = reader.parse(row)
    if isinstance(parsed, Rejected):
        return {
            "file": parsed.file,
            "line": parsed.line,
            "reason": str(parsed.reason),
            "detail": parsed.detail,
            "raw": parsed.raw,
        }
    tokens = room.tokens(parsed) if room else None
    too_long = room.why_too_long(*tokens) if room and tokens else None
    return {
        "id": parsed.id,
        "problem": parsed.problem,
        "solution": parsed.solution,
        "answer": parsed.answer,
        "check": parsed.check_text,
        "file": row.file,
        "line": row.line,
        "raw": row.raw.decode("utf-8", "replace") if too_long else None,
        "reason": str(Reason.TOO_LONG) if too_long else None,
        "detail": too_long,
        "tokens": tokens,
    }


def sift(
    batches: Iterable[list[dict[str, Any]]], source: ProblemSource, known: Collection[bytes] = ()
) -> Iterator[dict[str, Any]]:
    """Parsed rows in order, without those whose ids are `known`, ending at the limit of accepted ones.

    Duplicates of an earlier row and problems that a benchmark holds are rejected.
    """
    seen: set[bytes] = set()
    limit = source.rows.limit
    if limit is not None and len(known) >= limit:
        return
    for rows in batches:
        texts = [row.get("problem") or "" for row in rows]
        matches = source.excluded.match(texts) if source.excluded else [None] * len(rows)
        for row, match in zip(rows, matches, strict=True):
            if row["reason"] is None and match is not None:
                detail = f"it holds {match.share:.0%} of the word sequences of {match.problem} (data.exclude_suites)"
                row |= {"reason": str(Reason.CONTAMINATED), "detail": detail, "raw": row["problem"]}
            if row["reason"] is None:
                key = bytes.fromhex(row["id"])
                if key in known:
                    continue
                if key in seen:
                    row |= {"reason": str(Reason.DUPLICATE), "detail": f"the same problem as id {row['id']} before it"}
                seen.add(key)
            yield row
            if limit is not None and len(known) + len(seen) == limit:
                return
