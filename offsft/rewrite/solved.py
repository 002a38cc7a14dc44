"""The problems that a run has solved already, and a search for those most like another (BM25).

Two sources: the rewrites that the run has committed, from all of its engines and from before a restart, and those that
this process has finished since. Which problems are there when another one looks for examples depends on which were
solved by then; given those, the choice is determined: by score, and among equal scores by id. A row tells the ids that
it was shown.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from offsft.records import EXPERT, UNSOLVED, Rewrite
from offsft.storage.paths import StoragePath, parquet_files, read_table

_LOOK_S = 10.0
"""Least time between two looks into the run's folder, seconds."""
_GROWTH = 1.1
"""The index is made again once the problems have become this many times as many."""
_WORD = re.compile(r"[^\W\d_]+")
"""Numbers are left out: two problems with the same numbers need not be alike."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A solved problem and the response that was kept."""

    id: str
    problem: str
    response: str


class SolvedProblems:
    """Solved problems of one run, for one process; those kept as demonstrations are not solved.

    `folder` holds the run's committed rewrites; None: there are none. With `grows=False` the problems that this process
    finishes are not added: an HTTP service must not show one client's problem to another.
    """

    def __init__(self, folder: StoragePath | None, *, grows: bool = True) -> None:
        self._folder = folder
        self._grows = grows
        self._rows: dict[str, Solved] = {}
        self._read: set[str] = set()
        self._looked_s = -_LOOK_S
        self._index: Any = None
        self._indexed: list[Solved] = []
        self._looking = asyncio.Lock()

    def add(self, rewrite: Rewrite) -> None:
        """Add a finished problem, if one of the stages has solved it."""
        if self._grows and rewrite.source not in (EXPERT, UNSOLVED):
            self._rows[rewrite.id] = Solved(rewrite.id, rewrite.problem, rewrite.response)

    async def similar(self, problem_id: str, text: str, n: int, *, pool: int) -> list[Solved]:
        """Up to `n` solved problems with words in common with `text`, the most similar first, among the `pool` latest."""
        async with self._looking:
            if self._folder is not None and time.monotonic() - self._looked_s >= _LOOK_S:
                for row in await asyncio.to_thread(lambda: list(self._committed())):
                    self._rows.setdefault(row.id, row)
                self._looked_s = time.monotonic()
            while len(self._rows) > pool:
                del self._rows[next(iter(self._rows))]
            self._make_index()
        words = _words(text)
        if self._index is None or not words:
            return []
        scores = self._index.get_scores(words)
        ranked = sorted(
            (-float(score), row.id, row)
            for score, row in zip(scores, self._indexed, strict=True)
            if score > 0 and row.id != problem_id
        )
        return [row for _, _, row in ranked[:n]]

    def _committed(self) -> Iterator[Solved]:
        """Solved problems of files that have not been read yet."""
        assert self._folder is not None
        if not self._folder.exists():
            return
        for path in parquet_files(self._folder):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            for row in read_table(path, ["id", "problem", "response", "source"]).to_pylist():
                if row["source"] not in (EXPERT, UNSOLVED):
                    yield Solved(row["id"], row["problem"], row["response"])

    def _make_index(self) -> None:
        if len(self._rows) < max(1, _GROWTH * len(self._indexed)) and (self._index is not None or not self._rows):
            return
        import bm25s

        # In the order of ids, so that equal sets give equal scores whatever came first.
        self._indexed = sorted(self._rows.values(), key=lambda row: row.id)
        words = [_words(row.problem) for row in self._indexed]
        if not any(words):
            self._index = None
            return
        self._index = bm25s.BM25()
        self._index.index(words, show_progress=False)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
