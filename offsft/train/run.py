"""The training stage on the driver's side: Ray Train workers over the finished rewrites."""

import json
import threading
import time
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from upath import UPath

from offsft.config import Recipe
from offsft.console import Console, span
from offsft.disk_full import disk_full
from offsft.errors import TrainingError
from offsft.placement import Need, shortage
from offsft.run_folder import RunFolder
from offsft.storage import StoragePath, arrow, is_folder
from offsft.storage_fault import storage_fault
from offsft.train.checkpoint import rescue
from offsft.train.gap import gap_after
from offsft.train.measured import check_packages, measure_gap
from offsft.train.process_group import ProcessGroup
from offsft.train.rows import load_rows
from offsft.train.worker import WorkerSpec, train_loop

_POLL_S = 1.0


def train(recipe: Recipe, folder: RunFolder, model: str, console: Console) -> dict[str, Any]:
    """Train the policy in `model` on the folder's rewrites and export it to `model/`; returns what `train.json` holds.

    Raises:
        TrainingError: loss or gradient became non-finite, or the workers died more often than `train.max_failures`.
        OffsftError: the disk is full, or S3 fails.
    """
    started_s = time.monotonic()
    settings = recipe.train
    check_packages(settings)
    loaded = load_rows(folder.rewrites, settings)
    metrics = folder.path / "metrics.jsonl"
    trainer = _trainer(recipe, folder, _worker_spec(recipe, folder, model))
    stop = threading.Event()
    display = threading.Thread(target=_show, args=(metrics, console, Need.of_training(settings), stop), daemon=True)
    display.start()
    try:
        stopped = trainer.fit().return_value
    except Exception as error:  # Ray Train wraps whatever a worker raised; ours carries the reason for the user
        raise disk_full(error) or storage_fault(error) or _cause(error) from error
    finally:
        stop.set()
        display.join()
        console.done()
    if stopped is not None:
        raise TrainingError(stopped)
    gap = gap_after(folder.gap / "trained") if settings.gap_rows else None
    if gap:
        measure_gap(folder.path.name, gap)
    return _result(metrics) | {
        "skipped_steps": len(_lines(folder.path / "skipped.jsonl")),
        "gap": gap,
        "seconds": time.monotonic() - started_s,
        "objective": settings.objective.kind,
        "responses": settings.responses,
        "rows": len(loaded.rows),
        "cut_rows": loaded.cut,
        "dropped_rows": loaded.dropped,
        "left_out_rows": loaded.left_out,
    }


def _worker_spec(recipe: Recipe, folder: RunFolder, model: str) -> WorkerSpec:
    settings = recipe.train
    rescued = rescue(folder.checkpoints / "train", workers=settings.workers, zero_stage=settings.zero_stage)
    return WorkerSpec(
        run=folder.path.name,
        model=model,
        revision=None if is_folder(model) else recipe.model.revision,
        dtype=recipe.model.dtype,
        pickled_weights=recipe.model.pickled_weights,
        settings=settings,
        seed=recipe.seed,
        rewrites=str(folder.rewrites),
        metrics=str(folder.path / "metrics.jsonl"),
        board=str(folder.path / "tensorboard"),
        wandb=str(folder.path / "wandb"),
        skipped=str(folder.path / "skipped.jsonl"),
        reference=str(folder.reference),
        gap=str(folder.gap / "trained"),
        export=str(folder.model),
        adapter=str(folder.adapter),
        rescued=str(rescued) if rescued else None,
        logs=str(folder.logs),
    )


def _trainer(recipe: Recipe, folder: RunFolder, spec: WorkerSpec) -> TorchTrainer:
    settings = recipe.train
    filesystem, inner = arrow(folder.checkpoints)
    return TorchTrainer(
        train_loop,
        train_loop_config={"spec": spec},
        torch_config=ProcessGroup(),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=settings.gpus_per_worker > 0,
            placement_strategy=settings.placement.upper(),
            label_selector=dict(settings.node_labels) or None,
            resources_per_worker=_resources(settings.cpus_per_worker, settings.gpus_per_worker),
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


def _cause(error: BaseException) -> BaseException:
    """The TrainingError somewhere inside what Ray raised, else one that names what it is."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TrainingError):
            return seen
        inner = [e for e in getattr(seen, "worker_failures", {}).values() if isinstance(e, BaseException)]
        for failure in inner:
            cause = _cause(failure)
            if isinstance(cause, TrainingError):
                return cause
        seen = seen.__cause__
    last_line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return TrainingError(
        f"training failed: {last_line}; the workers' logs are train-*.log in logs/ of the run's folder"
    )


def _lines(metrics: StoragePath) -> list[dict[str, Any]]:
    if not metrics.exists():
        return []
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _show(metrics: StoragePath, console: Console, need: Need, stop: threading.Event) -> None:
    started_s = time.monotonic()
    while not stop.wait(_POLL_S):
        try:
            lines = _lines(metrics)
        except OSError:  # of the object store; the next time it may answer
            continue
        if not lines:
            short = shortage(need)
            doing = f"waiting: {short}" if short else "starting the workers"
            console.progress(f"train: {doing}, {span(time.monotonic() - started_s)}")
            continue
        last = lines[-1]
        left_s = (last["steps"] - last["step"]) * sum(line["time/step_s"] for line in lines) / len(lines)
        console.progress(
            f"train: step {last['step']} of {last['steps']}, loss {last['loss/objective']:.4f},"
            f" nll {last['loss/nll']:.4f}, {last['perf/tokens_per_s']:.0f} tokens/s, {span(left_s)} left"
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
