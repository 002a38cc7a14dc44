"""Write suites to a run's folder, `evaluation/problems/`: each suite once, and always the same."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from offsft.config import EvaluateConfig, Suite
from offsft.data.quarantine import write_rejected
from offsft.data.rows import Reason
from offsft.data.suites import HELD_OUT, load_suite
from offsft.data.tables import SUITE_SCHEMA
from offsft.errors import DataError, RunFolderError
from offsft.prompts import Prompts
from offsft.records import Problem
from offsft.storage.paths import StoragePath, make, parquet_files, read_table, write_table, write_text_atomically

_KEPT = ("id", "problem", "solution", "answer")


def problem_suites(problems: StoragePath) -> Iterator[tuple[str, str]]:
    """Id and suite of every problem in an evaluation's `problems/`, in order."""
    for path in parquet_files(problems):
        table = read_table(path)
        suites = table["suite"].to_pylist() if "suite" in table.column_names else [HELD_OUT] * len(table)
        yield from zip(table["id"].to_pylist(), suites, strict=True)


def name_held_out(problems: StoragePath) -> None:
    """Give the held-out problems the column of suites, so that all files of the folder have one layout."""
    for path in parquet_files(problems):
        table = read_table(path)
        if "suite" not in table.column_names:
            column = pa.array([HELD_OUT] * len(table), pa.string())
            write_table(table.append_column(SUITE_SCHEMA.field("suite"), column), path)


@dataclass(frozen=True, slots=True)
class SuiteIntake:
    """The folder for suites, the context that they must fit into, and the models' prompts."""

    evaluation: StoragePath
    settings: EvaluateConfig
    context_tokens: int
    prompts: Sequence[Prompts]
    shard_rows: int

    def take_in(self, suites: Sequence[Suite]) -> dict[str, int]:
        """Write the suites that are not there yet; returns the number of problems per suite that did not fit.

        Raises:
            DataError: a suite's rows cannot be found or read, or none of its problems fits into the context.
            RunFolderError: the folder holds another suite of that name, or one that is no longer named.
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
            tokens = max(len(prompts.with_style(style, problem)) for prompts in self.prompts)
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
