"""A run's folder: where each stage leaves what it made, and which settings belong to it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from offsft.config import Recipe
from offsft.errors import RunFolderError
from offsft.recipes import dump
from offsft.storage import StoragePath, at, is_filled, make, write_bytes

STAGE_SETTINGS = {
    "rewrite": ("seed", "domain", "model", "prompt", "data", "rewrite", "verify"),
    "train": ("train",),
    "evaluate": ("seed", "model", "prompt", "evaluate", "verify.kind"),
}
"""The settings that a stage's results depend on. All others may change between two commands on one folder."""

LEFT_BY = {
    "train": "checkpoints/, reference/, gap/trained/, model/, train.json, evaluate.json and evaluation/trained*",
    "evaluate": "evaluation/ and evaluate.json",
}
"""What to delete of a run's folder to do a stage again with other settings, and to keep the stages before it."""

FREE_SETTINGS = frozenset(
    {
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
        "train.tensorboard",
        "train.wandb",
        "train.head_chunk_tokens",
        "train.offload",
        "train.gradient_checkpointing",
        # May grow; that what is there stays is seen to by offsft.evaluate.
        "evaluate.suites",
        "evaluate.models",
        "evaluate.suite_folder",
    }
)
"""Settings below those of STAGE_SETTINGS that change how a stage runs, but not what it makes."""


class RunFolder:
    """Paths and stage results of one run on a disk or on S3."""

    def __init__(self, path: str, *, rewrites: StoragePath | None = None) -> None:
        """`rewrites` are those of another run's folder, where this one only trains and evaluates."""
        place = at(path)
        self.path: StoragePath = place.resolve() if isinstance(place, Path) else place
        self.logs = self.path / "logs"
        self.problems = self.path / "problems"
        self.quarantine = self.path / "quarantine"
        self.rewrites = rewrites or self.path / "rewrites"
        self.rewrites_done = self.path / "rewrites.committed"
        self.gap = self.path / "gap"
        self.reference = self.path / "reference"
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.evaluation = self.path / "evaluation"

    def open(self, recipe: Recipe) -> None:
        """Make the folder and keep the recipe in it, or continue the run that it holds.

        Raises:
            RunFolderError: a setting changed that a stage already begun depends on.
        """
        kept = self.path / "config.resolved.yaml"
        if kept.exists():
            before = yaml.safe_load(kept.read_text(encoding="utf-8"))
            self._refuse_mixing(before, recipe.model_dump(mode="json"))
        try:
            make(self.logs)
            write_text_atomically(kept, dump(recipe))
        except OSError as error:
            raise RunFolderError(f"run={recipe.run}: the folder cannot be written: {error}") from None

    def result(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage left, or None while it has not finished."""
        path = self.path / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, stage: str, result: dict[str, Any]) -> None:
        """Mark a stage as finished; written last, and atomically."""
        write_text_atomically(self.path / f"{stage}.json", json.dumps(result, indent=2) + "\n")

    def _begun(self, stage: str) -> bool:
        if stage == "rewrite":
            return is_filled(self.problems)
        return {"train": self.checkpoints, "evaluate": self.evaluation}[stage].exists()

    def _refuse_mixing(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        old, new = _flatten(before), _flatten(now)
        for stage, sections in STAGE_SETTINGS.items():
            if not self._begun(stage):
                continue
            for key in sorted(old.keys() | new.keys()):
                belongs = _in(key, sections) and not _in(key, FREE_SETTINGS)
                if belongs and old.get(key) != new.get(key):
                    again = f"{LEFT_BY[stage]} of {self.path}" if stage in LEFT_BY else str(self.path)
                    raise RunFolderError(
                        f"{key} is {new.get(key)!r}, but {self.path.name}/ was begun with {old.get(key)!r}; set it back,"
                        f" give this experiment a folder of its own (run=...), or, to begin again, delete {again}"
                    )


def write_text_atomically(path: StoragePath, text: str) -> None:
    """Replace a file's content so that a reader sees the old or the new, never a part."""
    write_bytes(path, text.encode())


def _in(key: str, settings: Iterable[str]) -> bool:
    """Whether a key is one of these settings, or lies below one."""
    return any(key == setting or key.startswith(setting + ".") for setting in settings)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
