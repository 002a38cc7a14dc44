"""Loads a model in shards, for ZeRO-3: no process ever holds all of its weights in private memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from offsft.config import TrainConfig
from offsft.train.zero import deepspeed_config


class _Zero3:
    """The part of a DeepSpeed configuration object that transformers uses while loading."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def is_zero3(self) -> bool:
        return True


@contextmanager
def sharded_loading(settings: TrainConfig, dtype: str) -> Iterator[None]:
    """A block within which transformers creates parameters as ZeRO-3 shards; all ranks load together.

    Each parameter is split into the ranks' shares as soon as it is created. Rank 0 distributes the weights one module
    after the other, from files that are mapped, not read at once. At any other stage the block changes nothing.
    """
    if settings.zero_stage != 3:
        yield
        return
    from transformers.integrations import deepspeed

    told = _Zero3(deepspeed_config(settings, dtype))  # transformers keeps only a weak reference to it
    deepspeed.set_hf_deepspeed_config(told)
    try:
        yield
    finally:
        deepspeed.unset_hf_deepspeed_config()
