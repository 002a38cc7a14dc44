"""The files behind `data.path` and `evaluate.path`: files, folders, patterns and data sets of the hub; local or s3://."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from offsft.config import ProblemRows
from offsft.data.containers import numbered_rows, why_unreadable
from offsft.data.hub import HUB, hub_files
from offsft.data.splits import TRAIN, configurations, fits_pattern, is_data_file, is_of_split, split_of
from offsft.errors import ConfigError, DataError
from offsft.storage.faults import check_reachable
from offsft.storage.paths import StoragePath, arrow, at, is_url

_SHOWN = 6
_READERS = 16
"""Files whose first bytes are looked at concurrently: on S3 each look is a request."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One file: its path, its size, and its path below the folder or the pattern that named it; empty if named itself."""

    path: str
    size: int
    relative: str = ""


def existing_files(rows: ProblemRows, setting: str) -> list[str]:
    """All non-empty data files that the settings name, folders and patterns expanded, in order.

    Raises:
        ConfigError: one does not exist, several splits are there and none is named, or some files are on a disk and
            some on S3; names the `setting` (`data.path`).
        DataError: one is empty, cannot be read, or is of a kind that is not read.
    """
    if len({is_url(path) and not path.startswith(HUB) for path in rows.paths}) > 1:
        raise ConfigError(f"{setting} names files on a disk and on S3; put all in one place")
    files: list[str] = []
    for path in rows.paths:
        if path.startswith(HUB):
            files += hub_files(path, rows.split, setting)
            continue
        prefix = "s3://" if is_url(path) else ""
        files += [prefix + found.path for found in _files_of(path, rows, setting)]
    files = list(dict.fromkeys(files))  # patterns may overlap
    with ThreadPoolExecutor(_READERS) as readers:
        for file, reason in zip(files, readers.map(_why_unreadable, files), strict=True):
            if reason is not None:
                raise DataError(f"{setting}: {file} is {reason}")
    return files


def skipped_files(rows: ProblemRows, setting: str) -> list[str]:
    """Files in the folders of the settings that are not read, since they are no data files, or were not named."""
    skipped: list[str] = []
    for path in rows.paths:
        if not path.startswith(HUB):
            found = _found(path, setting)
            taken = {each.path for each in _files_of(path, rows, setting)}
            skipped += [each.path for each in found if each.path not in taken]
    return skipped


def _files_of(path: str, rows: ProblemRows, setting: str) -> list[_Found]:
    """The non-empty files of one path that are of the split and fit the patterns."""
    found = _found(path, setting)
    if not found and has_magic(path):
        raise ConfigError(f"{setting}={path}: no file matches this pattern")
    if not found and not at(path, setting).exists():
        raise ConfigError(
            f"{setting}={path} does not exist; give a JSONL or Parquet file, a folder of them, or a pattern such as"
            " data/*.jsonl"
        )
    chosen = _chosen(found, path, rows, setting)
    if not any(info.size for info in chosen):
        raise DataError(f"{setting}={path} is empty; it should hold one problem a line (JSONL) or a row (Parquet)")
    return [info for info in chosen if info.size]


def _chosen(found: list[_Found], path: str, rows: ProblemRows, setting: str) -> list[_Found]:
    """The files to read: those of the patterns and the split, else all if their names do not tell several splits."""
    section = setting.partition(".")[0]
    if rows.files and any(info.relative for info in found):
        chosen = [info for info in found if fits_pattern(info.relative, rows.files)]
        if not chosen:
            raise ConfigError(f"{section}.files={_listed(rows.files)} fits no file of {path}; it holds {_names(found)}")
    else:
        chosen = [info for info in found if not info.relative or is_data_file(info.relative)]
        if not chosen and has_magic(path):
            chosen = found  # a pattern names files, whatever their endings
        if found and not chosen:
            raise DataError(
                f"{setting}={path} holds no data file (.jsonl, .json, .csv, .tsv, .parquet, .arrow), but {_names(found)};"
                f" name other files with {section}.files=[PATTERN]"
            )
    if rows.split is not None:
        chosen = _of_split(chosen, path, rows.split, setting)
    elif not rows.files:
        _refuse_several_splits(chosen, path, setting)
    folders = [] if rows.files else configurations([info.relative for info in chosen if info.relative])
    if folders:
        raise ConfigError(
            f"{setting}={path} holds several configurations of a data set ({_listed(folders)}); say which with"
            f" {section}.files=[{folders[0]}/*]"
        )
    return chosen


def _of_split(found: list[_Found], path: str, split: str, setting: str) -> list[_Found]:
    chosen = [info for info in found if is_of_split(info.relative or Path(info.path).name, split)]
    if not chosen:
        section = setting.partition(".")[0]
        raise ConfigError(
            f"{section}.split={split}: no file of {path} has this split in its name; it holds {_names(found)}; leave"
            f" {section}.split out, or name the files with {section}.files=[PATTERN]"
        )
    return chosen


def _refuse_several_splits(found: list[_Found], path: str, setting: str) -> None:
    """Refuse what might train on a test split: a folder or pattern whose names tell held-out files and others.

    A folder that holds a held-out split alone is refused as training data, too.
    """
    splits = {split_of(info.relative) for info in found if info.relative}
    held_out = {split for split in splits if split not in (TRAIN, None)}
    section = setting.partition(".")[0]
    unnamed = section == "data" and splits and splits == held_out and not has_magic(path)
    if held_out and (len(splits) > 1 or unnamed):
        told = " and ".join(sorted(split or "unnamed" for split in splits))
        wanted = TRAIN if section == "data" and TRAIN in splits else min(map(str, held_out))
        raise ConfigError(
            f"{setting}={path} holds files of {'the splits' if len(splits) > 1 else 'the split'} {told} ({_names(found)});"
            f" none is taken unasked: say which with {section}.split={wanted}, or {section}.files=[PATTERN]"
        )


def _found(path: str, setting: str) -> list[_Found]:
    """All files at a path, below it, or of its pattern. A name that exists as written is not a pattern.

    Raises:
        DataError: they cannot be listed.
        StorageError: the object store cannot be reached.
    """
    place = at(path, setting)
    check_reachable(place, setting)
    try:
        if not has_magic(path) or place.exists():
            return list(_files_at(place, ""))
        base = _fixed_part(path)
        return [info for each in _matches(place) for info in _files_at(each, base)]
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{setting}={path} cannot be read: {error}") from None


def _matches(place: StoragePath) -> list[StoragePath]:
    if isinstance(place, Path):
        return [Path(match) for match in sorted(glob(str(place), recursive=True))]
    found: Any = place.fs.glob(place.path)
    return [at(f"s3://{match}") for match in sorted(found)]


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first wildcard, as they start the paths of its matches."""
    parts = pattern.removeprefix("s3://").split("/")
    fixed = next(number for number, part in enumerate(parts) if has_magic(part))
    base = "/".join(parts[:fixed])
    return base if is_url(pattern) else str(Path(base or ("/" if pattern.startswith("/") else ".")).absolute())


def _files_at(place: StoragePath, base: str) -> Iterator[_Found]:
    """The file at a place, or all files below it, with their paths below `base` (or below the place, if it is empty)."""
    filesystem, inner = arrow(place.absolute() if isinstance(place, Path) else place)
    info = filesystem.get_file_info(inner)
    if info.type is pyarrow.fs.FileType.Directory:
        below = filesystem.get_file_info(pyarrow.fs.FileSelector(inner, recursive=True))
        for each in sorted(below, key=lambda each: each.path):
            if each.type is pyarrow.fs.FileType.File:
                yield _Found(each.path, each.size, _below(each.path, base or inner))
    elif info.type is pyarrow.fs.FileType.File:
        yield _Found(info.path, info.size, _below(info.path, base) if base else "")


def _below(path: str, base: str) -> str:
    return path.removeprefix(base).lstrip("/")


def _names(found: list[_Found]) -> str:
    return _listed([info.relative or Path(info.path).name for info in found])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _why_unreadable(path: str) -> str | None:
    return _opened(path, lambda file: why_unreadable(file, path))


def _opened(path: str, use: Callable[[pa.NativeFile], Any]) -> Any:
    filesystem, inner = arrow(at(path))
    with filesystem.open_input_file(inner) as file:
        return use(file)


def read_rows(path: str) -> Iterator[tuple[int, bytes]]:
    """The numbered rows of one of `existing_files`."""
    filesystem, inner = arrow(at(path))
    with filesystem.open_input_file(inner) as file:
        yield from numbered_rows(file, path)
