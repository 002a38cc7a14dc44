"""python -m jobs.export_model run=FOLDER

Export the model of a run's last checkpoint to model/ in its folder. The training does the same at its end: this is for
an export that failed, a model/ that was deleted, or a look at a training that goes on. The recipe is the run's own.
Needs no GPU, and main memory for the model twice.
"""

from typing import TYPE_CHECKING

from .cli import run

if TYPE_CHECKING:
    from offsft.config import Recipe
    from offsft.runtime.console import Console


def work(recipe: "Recipe", console: "Console") -> None:
    from offsft.models import resolve_model
    from offsft.storage.run_folder import RunFolder, read_recipe
    from offsft.storage.run_lock import lock_run
    from offsft.train.export_checkpoint import export_checkpoint

    folder = RunFolder(recipe.run)
    own = read_recipe(folder)
    with lock_run(folder.path):
        console.quiet(folder.logs / "export.log")
        console.progress("export: reading the last checkpoint")
        found = export_checkpoint(own, folder, resolve_model(own.model))
    console.done()
    for note in found.notes:
        console.say(f"export: {note}")
    console.say(f"export: {folder.model} is the model after step {found.step}")


if __name__ == "__main__":
    run(work, str(__doc__))
