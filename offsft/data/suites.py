"""Benchmarks by name: their descriptions (`suites.yaml`, users' YAML files) and their rows as problems."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from offsft.config import ProblemRows, Suite
from offsft.config.base import expand_home
from offsft.data.files import existing_files, read_rows
from offsft.data.rows import RawRow, Rejected
from offsft.data.suite_rows import parse_suite, suite_column
from offsft.errors import ConfigError, DataError
from offsft.records import Problem

HELD_OUT = "held_out"
"""Name of the problems at `evaluate.path` among the suites; their rows name no suite."""
FOLDER_VARIABLE = "OFFSFT_SHARED_DATA"
_BUILT_IN = Path(__file__).with_name("suites.yaml")


def built_in_names() -> list[str]:
    """The names of all suites that come with offsft."""
    return [suite.name for suite in _read_suites(_BUILT_IN, "suites.yaml")]


def find_suites(names: list[str], setting: str = "evaluate.suites") -> list[Suite]:
    """The suites of these names, in order; a name that ends in .yaml is a user's file with one or more suites.

    Raises:
        ConfigError: there is no such suite, or a file does not describe one; names the `setting`.
    """
    built_in = {suite.name: suite for suite in _read_suites(_BUILT_IN, setting)}
    found: list[Suite] = []
    for name in names:
        if name.endswith((".yaml", ".yml")):
            found += _read_suites(Path(name), setting)
        elif name in built_in:
            found.append(built_in[name])
        else:
            known = ", ".join(built_in)
            raise ConfigError(f"{setting}: there is no suite {name!r}; there are {known}, or give a YAML file")
    twice = sorted({suite.name for suite in found if sum(other.name == suite.name for other in found) > 1})
    if twice:
        raise ConfigError(f"{setting} names {', '.join(twice)} more than once; give each once, under its own name")
    return found


def load_suite(suite: Suite, folder: str | None) -> list[Problem]:
    """All problems of a suite, from its file in `folder` (None: the one that OFFSFT_SHARED_DATA names) or the hub.

    Raises:
        DataError: the rows cannot be found, or one of them cannot be read: a benchmark is complete or refused.
    """
    path = _file(suite, folder)
    place = str(path) if path else f"{suite.hub}"
    problems = []
    rows = [RawRow(place, line, raw) for line, raw in (_file_rows(suite, path) if path else _hub_rows(suite, folder))]
    column = suite_column(rows, suite)
    for row in rows:
        problem = parse_suite(row, suite, column)
        if isinstance(problem, Rejected):
            raise DataError(f"suite {suite.name}: {place}:{row.line}: {problem.detail}")
        problems.append(problem)
    if not problems:
        raise DataError(f"suite {suite.name}: {place} holds no rows")
    if suite.sizes and len(problems) not in suite.sizes:
        raise DataError(
            f"suite {suite.name}: {place} holds {len(problems)} rows, and the benchmark has"
            f" {' or '.join(map(str, suite.sizes))}; give the whole file, and take fewer problems with evaluate.limit"
        )
    return problems


def _file_rows(suite: Suite, path: Path) -> Iterator[tuple[int, bytes]]:
    (file,) = existing_files(ProblemRows(path=str(path)), f"suite {suite.name}")
    return read_rows(file)


def _read_suites(path: Path, setting: str) -> list[Suite]:
    """The suites of a YAML file; their files are relative to it, those of the built-in ones to the suites' folder."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{setting}={path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict) or not all(isinstance(entry, dict) for entry in tree.values()):
        raise ConfigError(
            f"{setting}={path} must map each suite's name to its settings, such as `mine: {{file: m.jsonl}}`"
        )
    suites = []
    for name, entry in tree.items():
        entry = {"name": str(name), **entry}
        if path != _BUILT_IN and isinstance(entry.get("file"), str):
            entry["file"] = str(path.resolve().parent / expand_home(entry["file"]))
        try:
            suites.append(Suite.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{setting}={path}: {name}.{where}={first['input']!r}: {first['msg']}") from None
    return suites


def _file(suite: Suite, folder: str | None) -> Path | None:
    """The suite's file, if it exists."""
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if suite.file is None or (folder is None and not Path(suite.file).is_absolute()):
        return None
    path = (Path(folder or ".") / suite.file).resolve()
    return path if path.is_file() else None


def _hub_rows(suite: Suite, folder: str | None) -> Iterator[tuple[int, bytes]]:
    missing = f"suite {suite.name}: there is no file {suite.file} in {folder or os.environ.get(FOLDER_VARIABLE) or 'any folder'}"
    advice = f"; set evaluate.suite_folder, or {FOLDER_VARIABLE}, to the folder that holds it"
    if suite.hub is None:
        raise DataError(missing + advice)
    try:
        from datasets import load_dataset

        rows: Any = load_dataset(suite.hub, suite.hub_config, split=suite.hub_split)
    except ImportError:
        raise DataError(
            f"{missing}, and the package `datasets`, which fetches {suite.hub}, is not installed{advice}"
        ) from None
    except Exception as error:  # of many kinds: no network, no such data set, a changed layout
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{missing}, and {suite.hub} cannot be fetched from Hugging Face: {reason}{advice}") from None
    for number, row in enumerate(rows, start=1):
        yield number, json.dumps(row, default=str).encode()
