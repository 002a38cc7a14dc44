"""Each setting states which stage's results it changes."""

from typing import Any, get_args

import pytest

from offsft.config import Recipe
from offsft.config.base import Affects, Strict
from offsft.config.recipe import stages_changed_by

HELD = {
    "rewrite": ("seed", "domain", "model", "prompt", "data", "rewrite", "engine.args", "engine.remote.model", "verify"),
    "train": ("train",),
    "evaluate": ("seed", "model", "prompt", "evaluate", "engine.args", "verify.kind"),
}
"""Settings or sections that may not change once a stage has begun; listed independently of the settings."""

FREE = {
    "data.on_change",
    "rewrite.commit_problems",
    "verify.timeout_s",
    "verify.memory_mb",
    "verify.workers",
    "verify.judge.cache",
    "verify.judge.key_variable",
    "verify.judge.tries",
    "verify.judge.timeout_s",
    "train.cpus_per_worker",
    "train.gpus_per_worker",
    "train.node_labels",
    "train.placement",
    "train.checkpoint_steps",
    "train.keep_checkpoints",
    "train.max_failures",
    "train.stall_s",
    "train.tensorboard",
    "train.wandb",
    "train.head_chunk_tokens",
    "train.offload",
    "train.gradient_checkpointing",
    "evaluate.suites",
    "evaluate.drift_problems",
    "evaluate.models",
    "evaluate.retention",
    "evaluate.suite_folder",
}
"""Settings within those that may change nevertheless."""


def leaves(model: type[Strict] = Recipe, prefix: str = "", said: bool = False):
    """Every setting's key, and whether it or a section above it states what it affects."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        speaks = said or any(isinstance(mark, Affects) for mark in field.metadata)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            yield from leaves(field.annotation, f"{key}.", speaks)
            continue
        yield key, speaks
        for arm in get_args(field.annotation):
            if isinstance(arm, type) and issubclass(arm, Strict):
                yield from ((f"{key}.{inner}", speaks) for inner in arm.model_fields)


def is_in(key: str, settings: Any) -> bool:
    return any(key == setting or key.startswith(setting + ".") for setting in settings)


@pytest.mark.parametrize(
    "key", sorted({key for key, _ in leaves()} | {"train.node_labels.group", "verify.options.x", "engine.args.x"})
)
def test_the_settings_say_what_the_list_says(key):
    expected = {stage for stage, sections in HELD.items() if is_in(key, sections) and not is_in(key, FREE)}
    assert stages_changed_by(key) == expected


def test_every_setting_has_a_say():
    assert not [key for key, speaks in leaves() if not speaks]


def test_a_setting_that_there_is_no_more_belongs_where_its_section_does():
    """An older recipe may contain one; a begun stage's settings must not be dropped silently."""
    assert stages_changed_by("train.gone") == {"train"}
    assert stages_changed_by("rewrite.gone.deeper") == {"rewrite"}
    assert stages_changed_by("engine.gone") == stages_changed_by("gone") == set()
