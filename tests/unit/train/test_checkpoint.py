"""The checkpoint to resume from if Ray Train's record is broken. Real shards: test_train_invariance.py."""

import random

import numpy as np
import pytest
import torch

from offsft.train.checkpoint import random_states, rescue, restore_random

RECORD = "checkpoint_manager_snapshot.json"


@pytest.fixture
def storage(tmp_path):
    """Three checkpoints of two ranks under ZeRO-2; the newest was cut off."""
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3"):
        shards = tmp_path / name / "step-1"
        shards.mkdir(parents=True)
        (tmp_path / name / "latest").write_text("step-1")
        for shard in ("model", "optimizer-0", "optimizer-1", "process-0", "process-1"):
            torch.save({"weights": torch.ones(100)}, shards / f"{shard}.pt")
    cut = tmp_path / "checkpoint_3" / "step-1" / "optimizer-1.pt"
    cut.write_bytes(cut.read_bytes()[:-30])
    return tmp_path


def checkpoints(storage):
    return sorted(path.name for path in storage.glob("checkpoint_?"))


@pytest.mark.parametrize("record", ["", '{"checkpoint_results": [{', None])
def test_the_newest_whole_checkpoint_is_taken_and_the_others_go(storage, record):
    if record is not None:
        (storage / RECORD).write_text(record)
    assert rescue(storage, workers=2, zero_stage=2) == storage / "checkpoint_2"
    assert checkpoints(storage) == ["checkpoint_2"]
    assert not (storage / RECORD).exists()


def test_nothing_is_touched_while_the_record_can_be_read(storage):
    (storage / RECORD).write_text("{}")
    assert rescue(storage, workers=2, zero_stage=2) is None
    assert len(checkpoints(storage)) == 3


def test_without_a_whole_one_training_begins_anew(storage, tmp_path):
    (storage / "checkpoint_1" / "latest").unlink()
    (storage / "checkpoint_2" / "step-1" / "optimizer-0.pt").unlink()
    assert rescue(storage, workers=2, zero_stage=2) is None
    assert checkpoints(storage) == []
    assert rescue(tmp_path / "nothing", workers=2, zero_stage=2) is None


def test_random_generators_go_on_from_where_they_stood():
    states = random_states()
    drawn = torch.rand(3).tolist(), np.random.rand(), random.random()
    restore_random(states)
    assert drawn == (torch.rand(3).tolist(), np.random.rand(), random.random())
