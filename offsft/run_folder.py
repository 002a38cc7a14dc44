"""A run's folder: where each stage leaves what it made, and which settings belong to it."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from offsft.config import Recipe
from offsft.errors import RunFolderError
from offsft.recipes import dump

STAGE_SETTINGS = {
    "rewrite": ("seed", "model", "prompt", "data", "rewrite", "verify.kind"),
    "train": ("train",),
    "evaluate": ("evaluate",),
}
"""The settings that a stage's results depend on. All others may change between two commands on one folder."""

FREE_SETTINGS = frozenset(
    {
        "rewrite.commit_problems",
        "train.cpus_per_worker",
        "train.gpus_per_worker",
        "train.checkpoint_steps",
        "train.keep_checkpoints",
        "train.max_failures",
        "train.tensorboard",
        "train.head_chunk_tokens",
        "train.offload",
        "train.gradient_checkpointing",
    }
)
"""Settings below those of STAGE_SETTINGS that change how a stage runs, but not what it makes."""


class RunFolder:
    """Paths and stage results of one run on a local or shared disk."""

    def __init__(self, path: str, *, rewrites: Path | None = None) -> None:
        """`rewrites` are those of another run's folder, where this one only trains and evaluates."""
        self.path = Path(path).resolve()
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
            self.logs.mkdir(parents=True, exist_ok=True)
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
        made = {"rewrite": self.problems, "train": self.checkpoints, "evaluate": self.evaluation}
        return made[stage].exists()

    def _refuse_mixing(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        old, new = _flatten(before), _flatten(now)
        for stage, sections in STAGE_SETTINGS.items():
            if not self._begun(stage):
                continue
            for key in sorted(old.keys() | new.keys()):
                belongs = any(key == section or key.startswith(section + ".") for section in sections)
                if belongs and key not in FREE_SETTINGS and old.get(key) != new.get(key):
                    raise RunFolderError(
                        f"{key} is {new.get(key)!r}, but {self.path.name}/ was begun with {old.get(key)!r}; set it back,"
                        f" give this experiment a folder of its own (run=...), or delete {self.path}"
                    )


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file's content so that a reader sees the old or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def remove(path: Path) -> None:
    """Delete a folder, if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
