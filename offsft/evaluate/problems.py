"""Suites into a run's folder: `evaluation/problems/`, suite by suite, each once and the same."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from offsft.config import Evaluate, Suite
from offsft.errors import DataError, RunFolderError
from offsft.evaluate.suites import load_suite
from offsft.problems import Reason
from offsft.prompts import Prompts
from offsft.quarantine import write_rejected
from offsft.records import Problem
from offsft.rewrite.tables import SUITE_SCHEMA
from offsft.run_folder import write_text_atomically
from offsft.storage import StoragePath, make, write_table

_KEPT = ("id", "problem", "solution", "answer")


@dataclass(frozen=True, slots=True)
class SuiteIntake:
    """Where suites go, what they must fit into, and for which models' prompts."""

    evaluation: StoragePath
    settings: Evaluate
    context_tokens: int
    prompts: Sequence[Prompts]
    shard_rows: int

    def take_in(self, suites: Sequence[Suite]) -> dict[str, int]:
        """Write the suites that are not there yet; returns how many problems of each had no room in the context.

        Raises:
            DataError: the rows of one cannot be found or read, or not one of its problems has room.
            RunFolderError: the folder holds another suite of that name, or one that is not named any more.
        """
        marks = self.evaluation / "suites"
        gone = {path.stem for path in marks.glob("*.json")} - {suite.name for suite in suites}
        if gone:
            raise RunFolderError(
                f"{self.evaluation.parent.name}/ holds answers to {', '.join(sorted(gone))}, which evaluate.suites does"
                " not name any more; name it too, or give this experiment a folder of its own (run=...)"
            )
        return {suite.name: self._one(suite, marks / f"{suite.name}.json") for suite in suites}

    def _one(self, suite: Suite, mark: StoragePath) -> int:
        problems = load_suite(suite, self.settings.suite_folder)[: self.settings.limit]
        digest = hashlib.sha256(repr((suite.verify, suite.style, problems)).encode()).hexdigest()
        if mark.exists():
            held = json.loads(mark.read_text(encoding="utf-8"))
            if held["digest"] != digest:
                raise RunFolderError(
                    f"suite {suite.name} is not the one that {self.evaluation.parent.name}/ was begun with: its rows or"
                    " its settings changed; give this experiment a folder of its own (run=...)"
                )
            return held["left_out"]
        kept, rejected = self._with_room(suite, problems)
        if not kept:
            raise DataError(f"no problem of suite {suite.name} has room for an answer: {rejected[0]['detail']}")
        folder = self.evaluation / "problems"
        for path in (folder, mark.parent):
            make(path)
        for first in range(0, len(kept), self.shard_rows):
            shard = folder / f"{suite.name}-{first:06d}.parquet"
            table = pa.Table.from_pylist(kept[first : first + self.shard_rows], schema=SUITE_SCHEMA)
            write_table(table, shard)
        if rejected:
            write_rejected(self.evaluation / "quarantine", rejected, suite.name)
        write_text_atomically(mark, json.dumps({"digest": digest, "left_out": len(rejected)}) + "\n")
        return len(rejected)

    def _with_room(self, suite: Suite, problems: list[Problem]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        style, room = self.settings.style or suite.style, self.context_tokens - self.settings.max_tokens
        kept: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        for problem in problems:
            tokens = max(len(prompts.styled(style, problem)) for prompts in self.prompts)
            row = {"file": suite.file or suite.hub, "line": int(problem.id.rpartition("-")[2])}
            if tokens <= room:
                about = {"suite": suite.name, "check": problem.check_text}
                kept.append(row | about | {key: getattr(problem, key) for key in _KEPT})
                continue
            detail = (
                f"the prompt has {tokens} tokens and evaluate.max_tokens={self.settings.max_tokens};"
                f" model.context_tokens={self.context_tokens} would have to be {tokens + self.settings.max_tokens}"
            )
            rejected.append(row | {"reason": str(Reason.TOO_LONG), "detail": detail, "raw": problem.problem})
        return kept, rejected
