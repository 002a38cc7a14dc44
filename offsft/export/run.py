"""Writes a run's rewrites into one file of another trainer's format, row by row, and counts what is left out."""

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from offsft.errors import ConfigError, DataError, RunFolderError
from offsft.export.formats import FORMATS, SCHEMAS, Format, Layout, record
from offsft.records import EXPERT, UNSOLVED
from offsft.storage.paths import StoragePath, at, make, open_parquet, parquet_files, writing

_COLUMNS = ["id", "problem", "solution", "answer", "source", "response", "attempts"]
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written and what was left out, as numbers of rows by source."""

    path: str
    written: Mapping[str, int]
    left_out: Mapping[str, int]

    def told(self) -> str:
        """The counts in one line."""
        rows = ", ".join(f"{source} {n}" for source, n in self.written.items())
        out = "; ".join(f"{n} {what}" for what, n in self.left_out.items())
        return f"{sum(self.written.values())} rows in {self.path} ({rows})" + (f"; left out: {out}" if out else "")


def export(settings: Mapping[str, str]) -> Exported:
    """Write the file that the settings of a command line ask for: `run`, `format`, `path`, `sources`, `data_source`.

    Raises:
        ConfigError: a setting is missing or wrong, or the file exists.
        RunFolderError: the run's folder has no finished rewrites, or cannot be read.
        DataError: no row is left to write.
    """
    kind, target = _format(settings), _target(settings)
    run = at(_needed(settings, "run", "the run's folder, such as runs/demo"))
    recipe = _recipe(run)
    stages = {stage["name"]: stage["kind"] for stage in recipe["rewrite"]["stages"]}
    chosen = _sources(settings.get("sources"), stages, kind)
    if kind == "dpo" and not recipe["rewrite"]["keep_text"]:
        raise ConfigError(
            "format=dpo needs the texts of refused attempts, and this run was made with rewrite.keep_text=false, which drops"
            " them; rewrite again with rewrite.keep_text=true in another folder (run=...)"
        )
    layout = Layout(
        plain=recipe["prompt"]["plain"],
        system=recipe["prompt"].get("system"),
        own_stages=frozenset(name for name, stage in stages.items() if stage == "self"),
        domain=recipe["domain"],
        data_source=settings.get("data_source")
        or f"offsft/{run.resolve().name if isinstance(run, Path) else run.name}",
        checks=_checks(run) if kind == "rl" else {},
    )
    return _write(kind, run, target, layout, chosen)


def _write(kind: Format, run: StoragePath, target: StoragePath, layout: Layout, chosen: list[str]) -> Exported:
    written: Counter[str] = Counter()
    left_out: Counter[str] = Counter()

    def records() -> Iterator[dict[str, Any]]:
        for row in _rows(run):
            source = row["source"]
            # A problem is worth asking whether anything was kept for it or not.
            if source not in chosen and kind != "rl":
                left_out[f"of the source {source}"] += 1
                continue
            made = record(kind, row, layout, sum(written.values()))
            if made is None:
                left_out["without a refused attempt that was finished"] += 1
                continue
            written[source] += 1
            yield made

    make(target.parent)
    with writing(target) as path:
        _write_records(kind, path, target.suffix, records())
        if not written:
            told = "; ".join(f"{n} {what}" for what, n in left_out.items())
            raise DataError(f"format={kind}: no row of {run} is left to write ({told or 'it has none'})")
    return Exported(str(target), dict(written), dict(left_out))


def _write_records(kind: Format, path: Path, suffix: str, records: Iterator[dict[str, Any]]) -> None:
    if suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for each in records:
                file.write(json.dumps(each, ensure_ascii=False) + "\n")
        return
    with pq.ParquetWriter(path, SCHEMAS[kind]) as file:
        batch: list[dict[str, Any]] = []
        for each in records:
            batch.append(each)
            if len(batch) == _BATCH_ROWS:
                file.write_table(pa.Table.from_pylist(batch, schema=SCHEMAS[kind]))
                batch = []
        if batch:
            file.write_table(pa.Table.from_pylist(batch, schema=SCHEMAS[kind]))


def _rows(run: StoragePath) -> Iterator[dict[str, Any]]:
    for path in parquet_files(run / "rewrites"):
        try:
            with open_parquet(path) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=_COLUMNS):
                    yield from batch.to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise RunFolderError(f"{path} cannot be read as Parquet: {error}; delete it and rewrite again") from None


def _recipe(run: StoragePath) -> dict[str, Any]:
    """The settings that the run was made with.

    Raises:
        RunFolderError: there is no run, or its rewriting has not finished.
    """
    try:
        recipe = yaml.safe_load((run / "config.resolved.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(f"run={run} holds no run: there is no config.resolved.yaml in it") from None
    except yaml.YAMLError as error:
        raise RunFolderError(f"{run / 'config.resolved.yaml'} is not valid YAML: {error}") from None
    if not parquet_files(run / "rewrites"):
        raise RunFolderError(f"run={run} has no rewrites; make them with jobs.rewrite and the run's recipe")
    if not (run / "rewrite.json").exists():
        raise RunFolderError(
            f"run={run}: its rewriting has not finished, and a part of the problems would be left out; the command that began"
            " it continues it"
        )
    return recipe


def _checks(run: StoragePath) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in parquet_files(run / "problems"):
        with open_parquet(path) as file:
            if "check" in file.schema_arrow.names:
                rows = file.read(columns=["id", "check"]).to_pylist()
                found |= {row["id"]: row["check"] for row in rows if row["check"]}
    return found


def _needed(settings: Mapping[str, str], key: str, what: str) -> str:
    if not settings.get(key):
        raise ConfigError(f"{key} is not set; give {key}=, {what}")
    return settings[key]


def _format(settings: Mapping[str, str]) -> Format:
    text = _needed(settings, "format", f"one of {', '.join(FORMATS)}")
    if text not in FORMATS:
        close = difflib.get_close_matches(text, FORMATS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"format={text} is none of {', '.join(FORMATS)}{hint}")
    return cast(Format, text)


def _target(settings: Mapping[str, str]) -> StoragePath:
    text = _needed(settings, "path", "the file to write, such as train.jsonl")
    target = at(text, "path")
    endings = (".parquet",) if settings["format"] == "rl" else (".jsonl", ".parquet")
    if target.suffix not in endings:
        raise ConfigError(
            f"path={text} does not end in {' or '.join(endings)}, which format={settings['format']} is written as"
        )
    if target.exists():
        raise ConfigError(f"path={text} exists already; give another path, or delete it")
    return target


def _sources(text: str | None, stages: Mapping[str, str], kind: Format) -> list[str]:
    """The sources to write: those that are asked for, else all rewrites; demonstrations are none."""
    if text is None:
        return [name for name in stages if name != EXPERT]
    if kind == "rl":
        raise ConfigError(
            "format=rl writes every problem, whatever was kept for it, so it has no use for sources; leave it out"
        )
    try:
        asked = yaml.safe_load(text)
    except yaml.YAMLError:
        asked = None
    asked = [asked] if isinstance(asked, str) else asked
    if asked == ["all"]:
        return list(stages)
    if not isinstance(asked, list) or not asked:
        raise ConfigError(f"sources={text} is no list of stages' names; write it as sources=[{','.join(stages)}]")
    unknown = [str(name) for name in asked if name not in stages or name == UNSOLVED]
    if unknown:
        raise ConfigError(f"sources={text}: the run has no stage {', '.join(unknown)}; it has {', '.join(stages)}")
    return asked
