"""A run's folder: where each stage leaves its results, and which settings belong to it."""

import json
from pathlib import Path
from typing import Any

import yaml

from offsft.config import Recipe
from offsft.config.loading import dump, flatten
from offsft.config.recipe import stages_changed_by
from offsft.errors import ConfigError, RunFolderError
from offsft.storage.paths import StoragePath, at, is_filled, make, write_json, write_text_atomically

STAGES = ("rewrite", "train", "evaluate")
"""The stages that leave results here, in order; each writes `<stage>.json` once it has finished."""

LEFT_BY = {
    "train": "checkpoints/, reference/, gap/trained/, model/, train.json, evaluate.json and evaluation/trained*",
    "evaluate": "evaluation/ and evaluate.json",
}
"""Files to delete from a run's folder to redo a stage with other settings and keep the stages before it."""


def read_recipe(folder: "RunFolder") -> Recipe:
    """The recipe that a run was begun with.

    Raises:
        RunFolderError: the folder holds no run, or one of another version of offsft.
    """
    kept = folder.path / "config.resolved.yaml"
    if not kept.exists():
        raise RunFolderError(
            f"{folder.path} holds no run: it has no config.resolved.yaml; give the folder of one (run=...)"
        )
    try:
        return Recipe.model_validate(yaml.safe_load(kept.read_text(encoding="utf-8")))
    except (ValueError, yaml.YAMLError, ConfigError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunFolderError(f"{kept} is not a recipe of this version of offsft ({reason}); mend it") from None


class RunFolder:
    """Paths and stage results of one run on a disk or on S3."""

    def __init__(self, path: str, *, rewrites: StoragePath | None = None) -> None:
        """`rewrites` is the rewrites folder of another run, if this one only trains and evaluates."""
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
        """Create the folder and store the recipe in it, or continue the run that it holds.

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
        """The result of a finished stage, or None while it has not finished."""
        path = self.path / f"{stage}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def finish(self, stage: str, result: dict[str, Any]) -> None:
        """Mark a stage as finished; written last, and atomically."""
        write_json(self.path / f"{stage}.json", result)

    def has_rewrites(self) -> bool:
        """Whether the rewrites that this folder trains on are finished, here or in the run that they come from."""
        return (self.rewrites.parent / "rewrite.json").exists()

    def reopen(self, stage: str) -> None:
        """Mark a stage as unfinished; it continues from what it left."""
        (self.path / f"{stage}.json").unlink(missing_ok=True)

    def has_begun(self, stage: str) -> bool:
        """Whether a stage has left anything that depends on its settings."""
        if stage == "rewrite":
            return is_filled(self.problems)
        return {"train": self.checkpoints, "evaluate": self.evaluation}[stage].exists()

    def _refuse_mixing(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        old, new = flatten(before), flatten(now)
        begun = {stage for stage in STAGES if self.has_begun(stage)}
        for key in sorted(old.keys() | new.keys()):
            held = sorted(begun & stages_changed_by(key), key=STAGES.index)
            if held and old.get(key) != new.get(key):
                again = f"{LEFT_BY[held[0]]} of {self.path}" if held[0] in LEFT_BY else str(self.path)
                begun_with = f"with {old[key]!r}; set it back," if key in old else "without it;"
                raise RunFolderError(
                    f"{key} is {new.get(key)!r}, but {self.path.name}/ was begun {begun_with}"
                    f" give this experiment a folder of its own (run=...), or, to begin again, delete {again}"
                )
