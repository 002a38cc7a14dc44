"""What training tells beside metrics.jsonl: Prometheus metrics, and TensorBoard files."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from upath import UPath

from offsft import metrics
from offsft.errors import ConfigError
from offsft.storage import StoragePath, write_bytes


def measure_step(run: str, line: dict[str, Any]) -> None:
    """A line of metrics.jsonl as metrics."""
    metrics.TRAIN_STEP.set(line["step"], run=run)
    metrics.TRAIN_STEPS.set(line["steps"], run=run)
    metrics.TRAIN_LOSS.set(line["loss/objective"], run=run)
    metrics.TRAIN_NLL.set(line["loss/nll"], run=run)
    metrics.TRAIN_GRAD_NORM.set(line["optim/grad_norm"], run=run)
    metrics.TRAIN_LEARNING_RATE.set(line["optim/learning_rate"], run=run)
    metrics.TRAIN_WEIGHT_ESS.set(line["weight/ess_share"], run=run)
    metrics.TRAIN_TOKENS.add(line["tokens"], run=run)


def measure_skip(run: str, _: dict[str, Any]) -> None:
    metrics.TRAIN_SKIPPED.add(run=run)


def measure_gap(run: str, gap: dict[str, Any]) -> None:
    """The gap of the training's sample, as `offsft.train.gap.gap_after` returns it."""
    for when, by_responses in gap.items():
        for responses, by_source in by_responses.items():
            if "all" in by_source:
                labels = {"run": run, "responses": responses, "when": when}
                metrics.GAP_MEAN_LOG_RATIO.set(by_source["all"]["mean_log_ratio"], **labels)
                metrics.GAP_ESS.set(by_source["all"]["ess_share"], **labels)


def check_board() -> None:
    """Raises ConfigError where TensorBoard files cannot be written."""
    if find_spec("tensorboard") is None:
        raise ConfigError("train.tensorboard=true needs the package tensorboard; install it, or leave the setting out")


def board(folder: StoragePath, first_step: int) -> Callable[[dict[str, Any]], None]:
    """What writes each line's numbers as scalars; steps that a restart does again replace those that were there."""
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
