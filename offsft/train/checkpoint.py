"""Checkpoints: each rank's shards in one folder, and what to go on from where Ray Train's record of them is lost."""

import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upath import UPath

from offsft.errors import TrainingError
from offsft.storage import StoragePath, get_all, remove

_RECORD = "checkpoint_manager_snapshot.json"


def load_shards(engine: Any, folder: str) -> int:
    """This rank's part of a checkpoint; the number of steps that were done. Collective.

    Raises:
        TrainingError: the folder does not hold a whole checkpoint.
    """
    path, state = engine.load_checkpoint(folder)
    if path is None:
        raise TrainingError(
            f"the checkpoint {folder} is not whole; remove checkpoints/ of the run's folder and try again"
        )
    return int(state["step"])


def save_shards(engine: Any, folder: str, step: int) -> None:
    """Write this rank's part of a checkpoint after `step` steps; the parts of all ranks make one folder. Collective."""
    engine.save_checkpoint(folder, tag=f"step-{step}", client_state={"step": step})


def rescue(storage: StoragePath, *, workers: int, zero_stage: int) -> StoragePath | None:
    """The newest whole checkpoint in Ray Train's folder, where Ray Train's own record is missing or cut off.

    Ray Train writes the record in place: a disk that is full, or a kill at that moment, leaves half of it, which it would
    refuse to read. Then the record is removed, and so are all checkpoints but the one that is returned.
    """
    record = storage / _RECORD
    try:
        json.loads(record.read_text(encoding="utf-8"))
        return None
    except FileNotFoundError:
        pass
    except ValueError:
        record.unlink()
    found = sorted((path for path in storage.glob("checkpoint_*") if path.is_dir()), reverse=True)
    whole = next((folder for folder in found if is_whole(folder, workers, zero_stage)), None)
    for folder in found:
        if folder != whole:
            remove(folder)
    return whole


def is_whole(folder: StoragePath, workers: int, zero_stage: int) -> bool:
    """Whether the shards of all ranks are there, each to its last byte (a torch file is a zip with its index at the end)."""
    tag = folder / "latest"
    if not tag.is_file():
        return False
    shards = list((folder / tag.read_text(encoding="utf-8").strip()).glob("*.pt"))
    needed = {0: 1, 1: workers + 1, 2: workers + 1, 3: 2 * workers}[zero_stage]
    return len(shards) >= needed and all(_is_zip(shard) for shard in shards)


def _is_zip(shard: StoragePath) -> bool:
    with shard.open("rb") as file:
        return zipfile.is_zipfile(file)


@contextmanager
def local_copy(folder: StoragePath) -> Iterator[str]:
    """A checkpoint's folder on this machine's disk: itself, or what is fetched from S3 for the block."""
    if not isinstance(folder, UPath):
        yield str(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        get_all(folder, Path(scratch))
        yield scratch
