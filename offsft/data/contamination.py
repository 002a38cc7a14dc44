"""Contamination of training problems by suites: the index by which the intake leaves problems out, and the report."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from offsft.config import DataConfig, Recipe
from offsft.data.files import existing_files, read_rows
from offsft.data.formats import parse
from offsft.data.overlap import Overlap
from offsft.data.reader import find_reader
from offsft.data.rows import RawRow, Rejected
from offsft.data.suites import find_suites, load_suite
from offsft.errors import ConfigError
from offsft.records import Problem
from offsft.runtime.console import Console, span
from offsft.storage.paths import StoragePath, at, make, write_text_atomically

_BATCH = 1024
_SHOWN = 5


def suite_overlap(data: DataConfig, suite_folder: str | None) -> Overlap | None:
    """The index of the problems in `data.exclude_suites`; None if it names no suite.

    Raises:
        ConfigError: there is no such suite.
        DataError: a suite's rows cannot be found or read.
    """
    if not data.exclude_suites:
        return None
    suites = find_suites(data.exclude_suites, "data.exclude_suites")
    problems = [problem for suite in suites for problem in load_suite(suite, suite_folder)]
    return Overlap(((each.id, each.problem) for each in problems), words=data.exclude_words, share=data.exclude_share)


def check_contamination(recipe: Recipe, console: Console) -> dict[str, Any]:
    """Compare the recipe's training problems with `data.exclude_suites`; show and write `contamination.json`.

    Raises:
        OffsftError: no suite is named, or problems or suites cannot be found or read.
    """
    started_s = time.monotonic()
    overlap = suite_overlap(recipe.data, recipe.evaluate.suite_folder)
    if overlap is None:
        raise ConfigError("data.exclude_suites is empty; name suites to compare with, such as suites=[math500,gsm8k]")
    matches: list[dict[str, Any]] = []
    checked, rejected = 0, 0
    for rows in _batches(recipe):
        problems = [(place, row) for place, row in rows if isinstance(row, Problem)]
        rejected += len(rows) - len(problems)
        checked += len(problems)
        console.progress(f"contamination: {checked:,} problems compared, {len(matches)} matches")
        for (place, problem), match in zip(problems, overlap.match([row.problem for _, row in problems]), strict=True):
            if match is not None:
                matches.append(
                    {"place": place, "problem": problem.problem, "suite_problem": match.problem, "share": match.share}
                )
    matches.sort(key=lambda match: -match["share"])
    by_suite = Counter(match["suite_problem"].rpartition("-")[0] for match in matches)
    result = {
        "problems": checked,
        "unreadable": rejected,
        "words": recipe.data.exclude_words,
        "share": recipe.data.exclude_share,
        "suites": dict(by_suite),
        "matches": matches,
        "seconds": time.monotonic() - started_s,
    }
    folder = at(recipe.run)
    make(folder)
    write_text_atomically(folder / "contamination.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    _show(result, folder, console)
    return result


def _batches(recipe: Recipe) -> Iterator[list[tuple[str, Problem | Rejected]]]:
    """Problems with their places in the input, in batches."""
    batch: list[tuple[str, Problem | Rejected]] = []
    for place, row in _rows(recipe):
        batch.append((place, row))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def _rows(recipe: Recipe) -> Iterator[tuple[str, Problem | Rejected]]:
    data = recipe.data
    if data.path == "generated":
        from offsft.demo.problems import generate

        for number, row in enumerate(generate(data.generated_problems, split="train", seed=data.generated_seed), 1):
            yield (
                f"generated:{number}",
                parse(RawRow("generated", number, json.dumps(row).encode()), "own", data.fields),
            )
        return
    files = existing_files(data, "data.path")
    # Only the problem's text is compared: a row without a solution counts too.
    reader = find_reader(data, files, recipe.domain, held_out=True, setting="data.path")
    for path in files:
        for line, raw in read_rows(path):
            yield f"{path}:{line}", reader.parse(RawRow(path, line, raw))


def _show(result: dict[str, Any], folder: StoragePath, console: Console) -> None:
    for match in result["matches"][:_SHOWN]:
        console.say(
            f"  {match['share']:.0%} of {match['suite_problem']} in {match['place']}: {match['problem'][:90]!r}"
        )
    suites = ", ".join(f"{number} of {suite}" for suite, number in sorted(result["suites"].items())) or "none"
    unreadable = f", {result['unreadable']} rows could not be read" if result["unreadable"] else ""
    console.say(
        f"contamination: of {result['problems']} problems {len(result['matches'])} share at least"
        f" {result['share']:.0%} of the {result['words']}-word sequences of a suite's problem ({suites}){unreadable};"
        f" {span(result['seconds'])}, {folder}/contamination.json"
    )
