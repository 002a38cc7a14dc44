"""The whole method on one run's folder: rewrite, train, evaluate, report; each stage runs once."""

from collections.abc import Sequence

from offsft.config import Recipe
from offsft.errors import RunFolderError
from offsft.models import resolve_model
from offsft.pipeline.checks import check_input, needs_policy, settle_changes, used_folders
from offsft.pipeline.dry_run import refuse_what_stops
from offsft.pipeline.stages import STAGES, StageContext, display_path, unfinished
from offsft.runtime.console import Console
from offsft.storage.faults import check_reachable
from offsft.storage.run_folder import RunFolder
from offsft.storage.run_lock import lock_run


def run_stages(recipe: Recipe, stages: Sequence[str], console: Console) -> None:
    """Run the unfinished stages, in order, and leave the rest unchanged.

    Raises:
        OffsftError: a stage stops for a reason that the user can act on.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    work = [stage for stage in stages if stage != "report"]
    if work:
        # Before the lock, which makes the folder: a recipe with missing input leaves no folder behind.
        check_input(recipe, folder, unfinished(recipe, folder, work))
        with lock_run(folder.path):
            _work(recipe, work, folder, console)
    if "report" in stages:
        _report(folder, console)


def _work(recipe: Recipe, stages: list[str], folder: RunFolder, console: Console) -> None:
    folder.open(recipe)
    settle_changes(recipe, folder, console)
    left = unfinished(recipe, folder, stages)
    for stage in stages:
        if stage not in left:
            console.say(f"{stage}: already done")
    if left:
        console.quiet(folder.logs / "driver.log")
        _run_on_ray(recipe, left, folder, console)


def _run_on_ray(recipe: Recipe, stages: list[str], folder: RunFolder, console: Console) -> None:
    from offsft.runtime.nodes import check_nodes
    from offsft.runtime.session import ray_session

    console.progress("starting")
    model = ""
    if needs_policy(recipe, stages):
        model = resolve_model(recipe.model)
        console.progress("checking the model")
        refuse_what_stops(recipe, model, stages, console)
    with ray_session(recipe.cluster):
        check_nodes(folder.path, used_folders(recipe, stages, model), console)
        for stage in stages:
            STAGES[stage](StageContext(recipe, folder, model, console))


def _report(folder: RunFolder, console: Console) -> None:
    from offsft.report.page import write_report
    from offsft.report.summary import write_summary
    from offsft.report.terminal import summary_table

    if not any(folder.result(stage) for stage in STAGES):
        raise RunFolderError(
            f"{folder.path} holds no finished stage to report on; run jobs.pipeline or jobs.rewrite first"
        )
    console.progress("report: drawing")
    summary = write_summary(folder.path)
    write_report(folder.path)
    console.done()
    console.rich.print(summary_table(summary))
    console.say(f"report: {display_path(folder.path / 'report.html')}")
