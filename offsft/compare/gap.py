"""The policy gap of any two (model, responses) pairs, side by side."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich import box
from rich.table import Table

from offsft.config import GapSide, Recipe
from offsft.errors import RunFolderError
from offsft.gap import Scored, gap_by_source
from offsft.inference.batch_job import count_rows
from offsft.inference.engines import check_engine
from offsft.inference.score import run_score
from offsft.inference.spec import SamplerFactory
from offsft.models import MODEL_LAST, fingerprint, resolve_model
from offsft.records import UNSOLVED
from offsft.report import numbers
from offsft.runtime.console import Console
from offsft.runtime.nodes import check_nodes
from offsft.runtime.session import ray_session
from offsft.storage.faults import check_reachable
from offsft.storage.paths import StoragePath, at, is_filled, parquet_files, read_table, write_json
from offsft.storage.run_folder import RunFolder
from offsft.storage.run_lock import lock_run


def run_gap(recipe: Recipe, console: Console, *, sampler_factory: SamplerFactory | None = None) -> dict[str, Any]:
    """Score both sides unless already scored, write `gap/gap.json` and the statistics per row, and show the table.

    Raises:
        OffsftError: there are no rewrites, a model is missing or tokenizes differently, or no engine could start.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    with lock_run(folder.path):
        folder.open(recipe)
        return _run_gap(recipe, folder, console, sampler_factory)


def _run_gap(
    recipe: Recipe, folder: RunFolder, console: Console, sampler_factory: SamplerFactory | None
) -> dict[str, Any]:
    sides = {"first": recipe.gap.first, "second": recipe.gap.second}
    check_engine(recipe.engine)
    console.quiet(folder.logs / "driver.log")
    found: dict[str, Any] = {}
    with ray_session(recipe.cluster):
        models = {f"gap.{name}.model": _model(recipe, side, folder) for name, side in sides.items()}
        check_nodes(folder.path, models, console)
        for name, side in sides.items():
            rewrites = _rewrites(side, name) or folder.rewrites
            if not count_rows(rewrites):
                raise RunFolderError(f"gap.{name}: {rewrites} holds no rewrites; run jobs.rewrite first")
            model = _model(recipe, side, folder)
            output = folder.gap / "scores" / _key(side, model, rewrites)
            run_score(recipe, side, model, rewrites, output, folder, console, sampler_factory=sampler_factory)
            found[name] = {
                "model": side.model,
                "responses": side.responses,
                "rewrites": str(rewrites),
                "gap": gap_by_source(_read(output), recipe.rewrite.sources, folder.gap / f"{name}.parquet"),
            }
    write_json(folder.gap / "gap.json", found)
    console.done()
    console.rich.print(_table(found))
    console.say(f"gap: {folder.gap / 'gap.json'}; each row's in first.parquet and second.parquet beside it")
    return found


def _rewrites(side: GapSide, name: str) -> StoragePath | None:
    if not side.rewrites:
        return None
    place = at(side.rewrites, f"gap.{name}.rewrites")
    return place.resolve() if isinstance(place, Path) else place


def _model(recipe: Recipe, side: GapSide, folder: RunFolder) -> str:
    if side.model == "trained":
        if not is_filled(folder.model, MODEL_LAST):
            raise RunFolderError(f"{folder.path} holds no trained model; run jobs.train first")
        return str(folder.model)
    if side.model == "policy":
        return resolve_model(recipe.model)
    return resolve_model(recipe.model.model_copy(update={"path": side.model}))


def _key(side: GapSide, model: str, rewrites: StoragePath) -> str:
    """A folder's name for one scoring; a trained model gets a different name once its weights change."""
    text = json.dumps([model, fingerprint(model), str(rewrites), side.responses])
    return f"{side.responses}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _read(scores: StoragePath) -> Any:
    for path in parquet_files(scores):
        table = read_table(path)
        rows = table.filter(pc.field("source") != UNSOLVED).to_pydict()
        yield Scored(rows["id"], rows["source"], rows["logprobs"], rows["behavior"])


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model on responses")
    for column in ("rows", "log-ratio", "k1", "k3", "effective\ntokens", "effective\nrows"):
        table.add_column(column, justify="right", no_wrap=True)
    for side in found.values():
        for source, gap in side["gap"].items():
            table.add_row(
                f"{side['model']} on {side['responses']}" if source == "all" else f"  {source}",
                numbers.count(gap["rows"]),
                numbers.nats(gap["mean_log_ratio"]),
                numbers.nats(gap["kl_k1"]),
                numbers.nats(gap["kl_k3"]),
                numbers.percent(gap["ess_share"]),
                numbers.percent(gap["sequence_ess_share"]),
            )
    return table
