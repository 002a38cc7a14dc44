"""The split that a data file's name tells, and which files of a folder are data at all."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

_SPLITS = {
    "train": {"train", "training", "trainset"},
    "validation": {"validation", "valid", "val", "dev", "devel", "development"},
    "test": {"test", "testing", "tests", "testset", "eval", "evaluation", "heldout", "holdout"},
}
_WORD = re.compile(r"[a-z]+")
_SHARD = re.compile(r"(?P<split>[\w.]+?)-\d{5}-of-\d{5}")
"""The hub's name of a shard: `train-00000-of-00002`."""
_ENDING = re.compile(
    r"\.(?:jsonl|ndjson|jsonlines|json|parquet|pq|csv|tsv|arrow|feather)(?:\.(?:gz|gzip|zst|zstd|bz2|lz4|xz))?$",
    re.IGNORECASE,
)
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "croissant.json"}
"""Files that `datasets` and the hub leave beside the rows."""
TRAIN = "train"


def is_data_file(relative: str) -> bool:
    """Whether a file below a folder holds rows, by its ending; hidden files and known metadata do not."""
    parts = PurePosixPath(relative).parts
    hidden = any(part.startswith((".", "_")) for part in parts)
    return not hidden and parts[-1] not in _METADATA and _ENDING.search(relative) is not None


def split_of(relative: str) -> str | None:
    """The split that a file's name tells, else the nearest folder's: `train`, `validation` or `test`; None if none."""
    path = PurePosixPath(relative)
    for part in (path.name, *reversed(path.parts[:-1])):
        words = set(_WORD.findall(part.lower()))
        told = [split for split, names in _SPLITS.items() if words & names]
        if told:
            return told[0] if len(told) == 1 else None
    return None


def is_of_split(relative: str, split: str) -> bool:
    """Whether a file is of the split: by its shard's, its own or its folder's exact name, or by what `split_of` tells."""
    path = PurePosixPath(relative)
    stem = path.name.partition(".")[0]
    shard = _SHARD.match(path.name)
    exact = {shard["split"] if shard else stem, *path.parts[:-1]}
    if split in exact:
        return True
    return split_of(relative) == next((name for name, words in _SPLITS.items() if split.lower() in words), split)


def configurations(relatives: Sequence[str]) -> list[str]:
    """The folders that hold shards of one and the same name, as a data set's configurations do; empty if none do."""
    folders: dict[str, set[str]] = {}
    for relative in relatives:
        path = PurePosixPath(relative)
        if _SHARD.match(path.name):
            folders.setdefault(path.name, set()).add(str(path.parent))
    return sorted(max(folders.values(), key=len)) if any(len(each) > 1 for each in folders.values()) else []


def fits_pattern(relative: str, patterns: Sequence[str]) -> bool:
    """Whether a file's path in its folder, or its bare name, fits one of the patterns."""
    name = PurePosixPath(relative).name
    return any(fnmatchcase(relative, each) or fnmatchcase(name, each) for each in patterns)
