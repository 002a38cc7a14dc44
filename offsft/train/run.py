"""The training stage on the driver: runs Ray Train workers over the finished rewrites."""

import json
import math
import threading
import time
from contextlib import suppress
from typing import Any, cast

import ray
import ray.exceptions
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from upath import UPath

from offsft.config import Recipe
from offsft.errors import TrainingError, chain
from offsft.models import policy_name
from offsft.runtime.console import Console, span
from offsft.runtime.placement import Need, waiting
from offsft.storage.faults import disk_full, storage_fault
from offsft.storage.paths import StoragePath, arrow, is_folder
from offsft.storage.run_folder import RunFolder
from offsft.train.behavior import check_behavior
from offsft.train.checkpoint import rescue
from offsft.train.dry_run import handling_of
from offsft.train.gap import gap_after
from offsft.train.held_out import held_out_result
from offsft.train.phases import Phase, WatchState, describe, start_watch
from offsft.train.process_group import ProcessGroup
from offsft.train.trackers import check_packages, measure_gap
from offsft.train.worker import TrainingEnd, WorkerSpec, train_loop
from offsft.train.zero import stage_of

_POLL_S = 1.0
_ANSWER_S = 5.0
_PATIENCE_S = 600
"""What processes that wait for one another grant beyond `train.stall_s`."""


def train(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> dict[str, Any]:
    """Train the policy in `model` on the folder's rewrites and export it to `model/`; returns the dict of `train.json`.

    Raises:
        TrainingError: loss or gradient became non-finite, or the workers died more often than `train.max_failures`.
        OffsftError: the disk is full, or S3 fails.
    """
    started_s = time.monotonic()
    settings = recipe.train
    check_packages(settings)
    check_behavior(folder.rewrites, settings)
    metrics = folder.path / "metrics.jsonl"
    stage = stage_of(settings, recipe.model.dtype)
    rescued = rescue(folder.checkpoints / "train", workers=settings.workers, zero_stage=stage)
    packed = handling_of(model, _revision(recipe, model), settings).packed
    spec = worker_spec(recipe, folder, model, rescued=rescued, packed=packed)
    watch = start_watch()
    display = _Display(metrics, console, Need.of_training(settings), watch)
    try:
        with display:
            ended = cast(TrainingEnd, _trainer(recipe, folder, spec, watch).fit().return_value)
    except Exception as error:  # Ray Train wraps any worker's error; ours carries the reason for the user
        raise disk_full(error) or storage_fault(error) or _cause(error, display.stalls) from error
    finally:
        ray.kill(watch)
    if ended.stopped is not None:
        raise TrainingError(ended.stopped)
    for note in ended.export_notes:
        console.say(f"train: {note}")
    assert ended.counts is not None, "a training that ran to its end has read its rows"
    gap = gap_after(folder.gap / "trained", recipe.rewrite.sources) if settings.gap_rows else None
    if gap:
        measure_gap(folder.path.name, gap)
    return _result(metrics) | {
        "skipped_steps": len(_lines(folder.path / "skipped.jsonl")),
        "gap": gap,
        "seconds": time.monotonic() - started_s,
        "objective": settings.objective.kind,
        "responses": settings.responses,
        "rows": ended.counts.rows,
        "cut_rows": ended.counts.cut,
        "dropped_rows": ended.counts.dropped,
        "left_out_rows": ended.counts.left_out,
        "unsolved_rows": ended.counts.unsolved,
        "held_out_rows": ended.counts.held_out,
        "held_out": held_out_result(folder.path / "held_out.jsonl", ended.counts.held_out),
        "export_notes": list(ended.export_notes),
    }


def worker_spec(
    recipe: Recipe, folder: RunFolder, model: str, *, rescued: StoragePath | None = None, packed: bool = True
) -> WorkerSpec:
    """What a training process of this recipe and run needs."""
    settings = recipe.train if packed else recipe.train.model_copy(update={"micro_batch_tokens": 1})
    return WorkerSpec(
        run=folder.path.name,
        name=policy_name(recipe),
        model=model,
        revision=_revision(recipe, model),
        dtype=recipe.model.dtype,
        pickled_weights=recipe.model.pickled_weights,
        prompt=recipe.prompt,
        thinking=recipe.model.thinking,
        settings=settings,
        packed=packed,
        seed=recipe.seed,
        rewrites=str(folder.rewrites),
        metrics=str(folder.path / "metrics.jsonl"),
        board=str(folder.path / "tensorboard"),
        wandb=str(folder.path / "wandb"),
        skipped=str(folder.path / "skipped.jsonl"),
        held_out=str(folder.path / "held_out.jsonl"),
        reference=str(folder.reference),
        gap=str(folder.gap / "trained"),
        export=str(folder.model),
        adapter=str(folder.adapter),
        rescued=str(rescued) if rescued else None,
        logs=str(folder.logs),
    )


def _revision(recipe: Recipe, model: str) -> str | None:
    return None if is_folder(model) else recipe.model.revision


def _trainer(recipe: Recipe, folder: RunFolder, spec: WorkerSpec, watch: Any) -> TorchTrainer:
    settings = recipe.train
    filesystem, inner = arrow(folder.checkpoints)
    return TorchTrainer(
        train_loop,
        train_loop_config={"spec": spec},
        torch_config=ProcessGroup(
            # Longer than the limit, so that a stall is told by its own line first.
            timeout_s=math.ceil(settings.stall_s) + _PATIENCE_S,
            watch=watch,
            stall_s=settings.stall_s,
            logs=str(folder.logs),
        ),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpus_per_worker > 0,
            placement_strategy=settings.placement.upper(),
            label_selector=dict(settings.node_labels) or None,
            resources_per_worker=_resources(settings.reserved_cpus, settings.gpus_per_worker),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=inner,
            storage_filesystem=filesystem if isinstance(folder.checkpoints, UPath) else None,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=settings.keep_checkpoints),
        ),
    )


def _resources(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _cause(error: BaseException, stalls: list[str]) -> TrainingError:
    """The TrainingError in the chain of Ray's error, else a new one with the last stall, or the error's last line."""
    for each in chain(error):
        if isinstance(each, TrainingError):
            return each
    if stalls:
        return TrainingError(
            f"training failed: {stalls[-1]}; raise train.stall_s if that was work, or see what the stacks wait for"
        )
    last_line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return TrainingError(
        f"training failed: {last_line}; the workers' logs are train-*.log in logs/ of the run's folder"
    )


def _lines(metrics: StoragePath) -> list[dict[str, Any]]:
    if not metrics.exists():
        return []
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


class _Display:
    """Shows what the workers do until the block exits, and says a line for each stall; a thread polls the watch."""

    def __init__(self, metrics: StoragePath, console: Console, need: Need, watch: Any) -> None:
        self.stalls: list[str] = []
        self._metrics = metrics
        self._console = console
        self._need = need
        self._watch = watch
        self._started_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(ray.exceptions.RayError):
            self._poll()  # of the stall that ended it
        self._console.done()

    def _show(self) -> None:
        while not self._stop.wait(_POLL_S):
            try:
                self._console.progress(f"train: {self._line(self._poll())}")
            except (OSError, ray.exceptions.RayError):  # the object store or the watch; the next try may succeed
                continue

    def _poll(self) -> WatchState:
        state: WatchState = ray.get(self._watch.state.remote(), timeout=_ANSWER_S)
        for line in state.stalls[len(self.stalls) :]:
            self._console.say(f"train: {line}")
        self.stalls = state.stalls
        return state

    def _line(self, state: WatchState) -> str:
        phases = {each.phase for each in state.doing.values()}
        lines = _lines(self._metrics) if phases and phases <= {Phase.TRAINING, Phase.SAVING} else []
        if lines:
            return _progress(lines) + (f", {Phase.SAVING}" if Phase.SAVING in phases else "")
        if state.doing:
            return describe(state.doing)
        waits = waiting(self._need, 0)
        return f"{f'waiting: {waits}' if waits else 'starting the workers'}, {span(time.monotonic() - self._started_s)}"


def _progress(lines: list[dict[str, Any]]) -> str:
    last = lines[-1]
    left_s = (last["steps"] - last["step"]) * sum(line["time/step_s"] for line in lines) / len(lines)
    return (
        f"step {last['step']} of {last['steps']}, loss {last['loss/objective']:.4f}, nll {last['loss/nll']:.4f},"
        f" {last['perf/tokens_per_s']:.0f} tokens/s, {span(left_s)} left"
    )


def _result(metrics: StoragePath) -> dict[str, Any]:
    lines = _lines(metrics)
    tokens, seconds = sum(line["tokens"] for line in lines), sum(line["time/step_s"] for line in lines)
    return {
        "steps": len(lines),
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "padding_share": 1 - tokens / max(1, sum(line["computed_tokens"] for line in lines)),
        "final_loss": lines[-1]["loss/objective"],
        "final_nll": lines[-1]["loss/nll"],
    }
