"""Checkpoints: each rank's shards in one folder, and the rescue of one when Ray Train's record of them is lost."""

import json
import random
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from upath import UPath

from offsft.errors import TrainingError
from offsft.storage.paths import StoragePath, get_all, remove
from offsft.train.moving import MovingReference

_RECORD = "checkpoint_manager_snapshot.json"


def load_shards(engine: Any, folder: str, rank: int, moving: MovingReference) -> int:
    """Load this rank's part of a checkpoint; returns the number of completed steps. Collective.

    Raises:
        TrainingError: the folder does not hold a complete checkpoint.
    """
    # With adapters, checkpoints hold the adapters alone, without the frozen weights.
    path, state = engine.load_checkpoint(folder, load_module_strict=not _has_frozen(engine))
    own = Path(folder) / f"step-{state['step']}" / _own_name(rank) if path else None
    if own is None or not own.exists():
        raise TrainingError(
            f"the checkpoint {folder} is not whole; remove checkpoints/ of the run's folder and try again"
        )
    kept = torch.load(own, weights_only=False)
    restore_random(kept["random"])
    moving.load(kept["reference"])
    return int(state["step"])


def save_shards(engine: Any, folder: str, step: int, rank: int, moving: MovingReference) -> None:
    """Write this rank's part of a checkpoint after `step` steps; all parts together form one folder. Collective."""
    tag = f"step-{step}"
    engine.save_checkpoint(folder, tag=tag, client_state={"step": step}, exclude_frozen_parameters=_has_frozen(engine))
    (Path(folder) / tag).mkdir(parents=True, exist_ok=True)
    torch.save({"random": random_states(), "reference": moving.state()}, Path(folder) / tag / _own_name(rank))


def read_weights(folder: str, *, frozen: bool) -> tuple[int, dict[str, torch.Tensor]]:
    """The completed steps and the trained weights of a checkpoint, in float32 where it holds a master copy.

    Needs neither its workers nor an engine. `frozen` says that some weights were not trained: those are not in it.
    """
    tag = (Path(folder) / "latest").read_text(encoding="utf-8").strip()
    step = int(tag.removeprefix("step-"))
    if not any((Path(folder) / tag).glob("*_optim_states.pt")):  # without ZeRO, one file has everything
        stored = torch.load(Path(folder) / tag / "mp_rank_00_model_states.pt", weights_only=False)
        return step, stored["module"]
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    weights = get_fp32_state_dict_from_zero_checkpoint(folder, tag=tag, exclude_frozen_parameters=frozen)
    assert weights is not None
    return step, dict(weights)


def _own_name(rank: int) -> str:
    return f"process-{rank}.pt"


def _has_frozen(engine: Any) -> bool:
    return any(not parameter.requires_grad for parameter in engine.module.parameters())


def random_states() -> dict[str, Any]:
    """The state of every random generator of this process; dropout draws from torch's."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random(states: dict[str, Any]) -> None:
    """Restore the state of every random generator."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def rescue(storage: StoragePath, *, workers: int, zero_stage: int) -> StoragePath | None:
    """The newest complete checkpoint in Ray Train's folder, if Ray Train's own record is missing or truncated.

    Ray Train writes the record in place: a full disk, or a kill at that moment, leaves half of it, which it would
    refuse to read. Then the record and all checkpoints except the returned one are removed.
    """
    record = storage / _RECORD
    try:
        json.loads(record.read_text(encoding="utf-8"))
        return None
    except FileNotFoundError:
        pass
    except ValueError:
        record.unlink()
    whole = newest_whole(storage, workers=workers, zero_stage=zero_stage)
    for folder in _newest_first(storage):
        if folder != whole:
            remove(folder)
    return whole


def newest_whole(storage: StoragePath, *, workers: int, zero_stage: int) -> StoragePath | None:
    """The newest complete checkpoint in Ray Train's folder, or None."""
    return next((folder for folder in _newest_first(storage) if is_whole(folder, workers, zero_stage)), None)


def _newest_first(storage: StoragePath) -> list[StoragePath]:
    return sorted((path for path in storage.glob("checkpoint_*") if path.is_dir()), reverse=True)


def is_whole(folder: StoragePath, workers: int, zero_stage: int) -> bool:
    """Whether the shards of all ranks are there and complete (a torch file is a zip with its index at the end)."""
    tag = folder / "latest"
    if not tag.is_file():
        return False
    shards = list((folder / tag.read_text(encoding="utf-8").strip()).glob("*.pt"))
    # DeepSpeed's, plus one of our own per process.
    needed = {0: 1, 1: workers + 1, 2: workers + 1, 3: 2 * workers}[zero_stage] + workers
    return len(shards) >= needed and all(_is_zip(shard) for shard in shards)


def _is_zip(shard: StoragePath) -> bool:
    with shard.open("rb") as file:
        return zipfile.is_zipfile(file)


@contextmanager
def local_copy(folder: StoragePath) -> Iterator[str]:
    """A checkpoint's folder on the local disk: the folder itself, or within the block a copy downloaded from S3."""
    if not isinstance(folder, UPath):
        yield str(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        get_all(folder, Path(scratch))
        yield scratch
