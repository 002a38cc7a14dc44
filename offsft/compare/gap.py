"""The policy gap of any two pairs of a model and responses, side by side."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from offsft.config import GapSide, Recipe
from offsft.console import Console
from offsft.engine_actor import SamplerFactory
from offsft.engine_job import count_rows
from offsft.errors import RunFolderError
from offsft.evaluate.score import run_score
from offsft.gap import Scored, gap_by_source
from offsft.model_files import MODEL_LAST, stamps_of
from offsft.pipeline import resolve_model
from offsft.ray_session import ray_session
from offsft.report import numbers
from offsft.run_folder import RunFolder, write_text_atomically
from offsft.run_lock import held
from offsft.storage import StoragePath, at, is_filled, is_url, parquet_files, read_table
from offsft.storage_fault import check_reachable


def run_gap(recipe: Recipe, console: Console, *, sampler_factory: SamplerFactory | None = None) -> dict[str, Any]:
    """Score both sides, unless they were before, write `gap/gap.json` and each row's statistics, and show the table.

    Raises:
        OffsftError: there are no rewrites, a model is missing or reads other tokens, or no engine could start.
    """
    folder = RunFolder(recipe.run)
    check_reachable(folder.path, "run")
    with held(folder.path):
        folder.open(recipe)
        return _run_gap(recipe, folder, console, sampler_factory)


def _run_gap(
    recipe: Recipe, folder: RunFolder, console: Console, sampler_factory: SamplerFactory | None
) -> dict[str, Any]:
    sides = {"first": recipe.gap.first, "second": recipe.gap.second}
    console.quiet(folder.logs / "driver.log")
    found: dict[str, Any] = {}
    with ray_session(recipe.cluster):
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
                "gap": gap_by_source(_read(output), folder.gap / f"{name}.parquet"),
            }
    write_text_atomically(folder.gap / "gap.json", json.dumps(found, indent=2) + "\n")
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
    """A folder's name for what was scored; a trained model is another one once its weights change."""
    if is_url(model):
        stamps = stamps_of(model)
    else:
        weights = sorted(Path(model).glob("*.safetensors")) if Path(model).is_dir() else []
        stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    text = json.dumps([model, stamps, str(rewrites), side.responses])
    return f"{side.responses}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _read(scores: StoragePath) -> Any:
    for path in parquet_files(scores):
        rows = read_table(path).to_pydict()
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
