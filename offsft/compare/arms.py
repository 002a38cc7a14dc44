"""One training of a comparison: an arm, a seed and a learning rate, in a run folder of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from offsft.config import Arm, Recipe
from offsft.pipeline.stages import StageContext, evaluate, train
from offsft.storage.paths import StoragePath, at, remove
from offsft.storage.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class ArmRun:
    """An arm's training with one seed and, where rates are tried, one learning rate."""

    arm: Arm
    seed: int
    rate: float | None
    folder: RunFolder

    @property
    def title(self) -> str:
        """The run's name for the screen."""
        rate = "" if self.rate is None else f", learning rate {self.rate:g}"
        return f"{self.arm.name}, seed {self.seed}{rate}"

    @property
    def validation(self) -> RunFolder:
        """Folder of the answers that choose the learning rate."""
        return RunFolder(str(self.folder.path / "validation"), rewrites=self.folder.rewrites)


def arm_run(root: RunFolder, arm: Arm, seed: int, rate: float | None) -> ArmRun:
    """The run of an arm below the comparison's folder."""
    name = f"{arm.name}-{seed}" + ("" if rate is None else f"-{rate:g}")
    rewrites = (
        root.rewrites if arm.rewrites is None else _resolve(at(arm.rewrites, f"compare.arms.{arm.name}.rewrites"))
    )
    return ArmRun(arm, seed, rate, RunFolder(str(root.path / "arms" / name), rewrites=rewrites))


def _resolve(place: StoragePath) -> StoragePath:
    return place.resolve() if isinstance(place, Path) else place


def arm_recipe(recipe: Recipe, run: ArmRun) -> Recipe:
    """The comparison's recipe with an arm's objective, data and settings, a seed, and a separate folder."""
    arm = run.arm
    changed = {"objective": arm.objective, "responses": arm.responses, "source_weights": arm.source_weights}
    own = {"lora": arm.lora, "schedule": arm.schedule, "epochs": arm.epochs, "learning_rate": arm.learning_rate}
    changed |= {key: value for key, value in own.items() if value is not None}
    if run.rate is not None:
        changed["learning_rate"] = run.rate
    training = recipe.train.model_copy(update=changed)
    return recipe.model_copy(update={"run": str(run.folder.path), "seed": run.seed, "train": training})


def train_arm(base: StageContext, run: ArmRun) -> StageContext:
    """Train an arm, unless that is done; returns its context."""
    context = replace(base, recipe=arm_recipe(base.recipe, run), folder=run.folder)
    run.folder.open(context.recipe)
    train(context)
    return context


def evaluate_arm(base: StageContext, run: ArmRun) -> None:
    """Evaluate an arm's model on all problems, unless that is done, then delete it unless models are kept."""
    context = train_arm(base, run)
    evaluate(context, {"trained": str(run.folder.model)})
    discard(base.recipe, run)


def validate_arm(base: StageContext, run: ArmRun) -> None:
    """Evaluate an arm's model on the validation problems, unless that is done."""
    if run.validation.result("evaluate") is not None:
        return
    context = train_arm(base, run)
    asked = {"limit": base.recipe.compare.validation_problems, "retention": [], "drift_problems": 0}
    recipe = context.recipe.model_copy(
        update={
            "run": str(run.validation.path),
            "evaluate": context.recipe.evaluate.model_copy(update=asked),
        }
    )
    run.validation.open(recipe)
    evaluate(replace(context, recipe=recipe, folder=run.validation, reference=None), {"trained": str(run.folder.model)})


def discard(recipe: Recipe, run: ArmRun) -> None:
    """Delete what an arm leaves that nothing needs any more: checkpoints, and the model unless models are kept."""
    remove(run.folder.checkpoints)
    if not recipe.compare.keep_models:
        remove(run.folder.model)


def needed_rewrites(root: RunFolder, arms: list[Arm]) -> Iterator[tuple[Arm, StoragePath]]:
    """The arms that train on rewrites of another run, and the folder of each."""
    for arm in arms:
        if arm.rewrites is not None:
            yield arm, arm_run(root, arm, 0, None).folder.rewrites
