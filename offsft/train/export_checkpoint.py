"""Export of a run's last checkpoint alone: without Ray, without GPUs, and without the processes that wrote it."""

from dataclasses import dataclass, replace

from offsft.config import Recipe
from offsft.errors import RunFolderError
from offsft.models import download_model
from offsft.storage.run_folder import RunFolder
from offsft.train.checkpoint import local_copy, newest_whole, read_weights
from offsft.train.engine import prepare_deepspeed
from offsft.train.export import own_names
from offsft.train.run import worker_spec
from offsft.train.worker import export_weights, find_source, load_model
from offsft.train.zero import stage_of


@dataclass(frozen=True, slots=True)
class Exported:
    """The step of the exported checkpoint, and a note for each setting that was mended."""

    step: int
    notes: list[str]


def export_checkpoint(recipe: Recipe, folder: RunFolder, model: str) -> Exported:
    """Write the newest whole checkpoint of the run to its `model/`; the main memory must hold the model twice.

    Raises:
        RunFolderError: the run has no whole checkpoint.
        OffsftError: the model before training cannot be used.
    """
    settings = recipe.train
    stage = stage_of(settings, recipe.model.dtype)
    found = newest_whole(folder.checkpoints / "train", workers=settings.workers, zero_stage=stage)
    if found is None:
        raise RunFolderError(
            f"{folder.path} holds no whole checkpoint of {settings.workers} workers; run jobs.train, which keeps one every"
            " train.checkpoint_steps and after its last step"
        )
    spec = worker_spec(recipe, folder, model)
    spec = replace(spec, model=download_model(spec.model))
    prepare_deepspeed(settings)
    with local_copy(found) as local:
        step, weights = read_weights(local, frozen=settings.lora.rank > 0)
        fresh = load_model(spec)
        trained = own_names(weights)
        if not settings.lora.rank:
            # Tied weights, which a checkpoint has once, get both names; and all get the model's own number type.
            fresh.load_state_dict(trained, strict=False)
            trained = fresh.state_dict()
        notes = export_weights(spec, fresh, trained, find_source(spec))
    return Exported(step, notes)
