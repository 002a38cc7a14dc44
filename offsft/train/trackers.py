"""Trackers in addition to metrics.jsonl: Prometheus metrics, TensorBoard files, and Weights & Biases."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from upath import UPath

from offsft.config import TrainConfig
from offsft.errors import ConfigError
from offsft.runtime import metrics
from offsft.storage.paths import StoragePath, make, write_bytes
from offsft.train.step_log import nll_by_source


def measure_step(run: str, line: dict[str, Any]) -> None:
    """Record a line of metrics.jsonl as Prometheus metrics."""
    metrics.TRAIN_STEP.set(line["step"], run=run)
    metrics.TRAIN_STEPS.set(line["steps"], run=run)
    metrics.TRAIN_LOSS.set(line["loss/objective"], run=run)
    metrics.TRAIN_NLL.set(line["loss/nll"], run=run)
    metrics.TRAIN_GRAD_NORM.set(line["optim/grad_norm"], run=run)
    metrics.TRAIN_LEARNING_RATE.set(line["optim/learning_rate"], run=run)
    metrics.TRAIN_WEIGHT_ESS.set(line["weight/ess_share"], run=run)
    metrics.TRAIN_TOKENS.add(line["tokens"], run=run)


def measure_held_out(run: str, line: dict[str, Any]) -> None:
    """Record a line of held_out.jsonl as Prometheus metrics."""
    for source, nll in nll_by_source(line).items():
        if nll is not None:
            metrics.TRAIN_HELD_OUT_NLL.set(nll, run=run, source=source)


def measure_skip(run: str, _: dict[str, Any]) -> None:
    metrics.TRAIN_SKIPPED.add(run=run)


def measure_gap(run: str, gap: dict[str, Any]) -> None:
    """Record the gap of the training's sample, as `offsft.train.gap.gap_after` returns it."""
    for when, by_responses in gap.items():
        for responses, by_source in by_responses.items():
            if "all" in by_source:
                labels = {"run": run, "responses": responses, "when": when}
                metrics.GAP_MEAN_LOG_RATIO.set(by_source["all"]["mean_log_ratio"], **labels)
                metrics.GAP_ESS.set(by_source["all"]["ess_share"], **labels)


def check_packages(settings: TrainConfig) -> None:
    """Raise ConfigError if a setting needs a package that is not installed."""
    if settings.tensorboard and find_spec("tensorboard") is None:
        raise ConfigError("train.tensorboard=true needs the package tensorboard; install it, or leave the setting out")
    if settings.wandb and find_spec("wandb") is None:
        raise ConfigError(f"train.wandb={settings.wandb} needs the package wandb; install it, or leave the setting out")


def board(folder: StoragePath, first_step: int) -> Callable[[dict[str, Any]], None]:
    """A TensorBoard writer for lines of metrics.jsonl; steps repeated after a restart replace the earlier ones."""
    from torch.utils.tensorboard import SummaryWriter

    scratch = TemporaryDirectory() if isinstance(folder, UPath) else None
    writer = SummaryWriter(scratch.name if scratch else str(folder), purge_step=first_step + 1)

    def write(line: dict[str, Any]) -> None:
        for key, value in line.items():
            if key not in {"step", "steps"} and value is not None:
                writer.add_scalar(key, value, line["step"])
        writer.flush()
        if scratch:
            for path in Path(scratch.name).iterdir():
                write_bytes(folder / path.name, path.read_bytes())

    return write


class Reports:
    """The listeners to which rank 0 reports each step, and each measurement of held-out rows, in addition to the logs.

    Raises:
        ConfigError: there is no key for Weights & Biases where rank 0 runs; on all ranks together.
    """

    def __init__(
        self, run: str, settings: TrainConfig, board_at: StoragePath, wandb_at: StoragePath, rank: int, first_step: int
    ) -> None:
        import torch.distributed

        trackers: list[Callable[[dict[str, Any]], None]] = []
        self._wandb: WandbRun | None = None
        refusal = [""]
        if rank == 0:
            if settings.tensorboard:
                trackers.append(board(board_at, first_step))
            try:
                self._wandb = WandbRun(settings.wandb, wandb_at, settings) if settings.wandb else None
            except ConfigError as error:
                refusal = [str(error)]
            if self._wandb:
                trackers.append(self._wandb.write)
        torch.distributed.broadcast_object_list(refusal, src=0)
        if refusal[0]:
            raise ConfigError(refusal[0])
        self.listeners = [partial(measure_step, run), *trackers]
        self.held_out_listeners = [partial(measure_held_out, run), *trackers]

    def finish(self) -> None:
        """Wait until all is sent or written."""
        if self._wandb:
            self._wandb.finish()


class WandbRun:
    """A Weights & Biases run, by Ray's own integration.

    Resumed training continues the same run; of repeated steps, Weights & Biases keeps the first values.

    Raises:
        ConfigError: there is no key here.
    """

    def __init__(self, project: str, folder: StoragePath, settings: TrainConfig) -> None:
        from ray.air.integrations.wandb import setup_wandb

        make(folder)
        self._folder = folder
        self._scratch = TemporaryDirectory() if isinstance(folder, UPath) else None
        if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
            os.environ.setdefault("WANDB_API_KEY", "0" * 40)  # Ray asks for one; nothing is sent
        name = folder.parent.name
        try:
            self._run = setup_wandb(
                settings.model_dump(mode="json"),
                project=project,
                name=name,
                id=f"{name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}",
                dir=self._scratch.name if self._scratch else str(folder),
                resume="allow",
            )
        except ValueError as error:
            raise ConfigError(
                f"train.wandb={project}: {error}. It is read where a training process runs: set it for the nodes, or"
                " WANDB_MODE=offline to write files alone"
            ) from None

    def write(self, line: dict[str, Any]) -> None:
        """Log a line of metrics.jsonl."""
        self._run.log({key: value for key, value in line.items() if key not in {"step", "steps"}}, step=line["step"])

    def finish(self) -> None:
        """Wait until all is sent or written."""
        self._run.finish()
        if self._scratch:
            for path in Path(self._scratch.name).rglob("*"):
                if path.is_file() and not path.is_symlink():
                    write_bytes(self._folder / path.relative_to(self._scratch.name).as_posix(), path.read_bytes())
