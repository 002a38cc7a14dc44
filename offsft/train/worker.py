"""The training loop of each process, run by Ray Train with DeepSpeed inside."""

import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import distributed

from offsft.config import PromptConfig, Thinking, TrainConfig
from offsft.errors import ConfigError, OffsftError, TrainingError
from offsft.models import download_model, files_but_weights
from offsft.prompts import load_prompts
from offsft.runtime import metrics as run_metrics
from offsft.runtime.console import put_output
from offsft.storage.paths import at
from offsft.train import phases
from offsft.train.batching import BatchPlan
from offsft.train.checkpoint import load_shards, local_copy, save_shards
from offsft.train.engine import prepare_deepspeed, start_engine
from offsft.train.export import Source, export, gather_weights, try_export
from offsft.train.gap import GapSample
from offsft.train.held_out import HeldOut
from offsft.train.loading import RowCounts, load_rows
from offsft.train.lora import merge_adapter
from offsft.train.moving import MovingReference
from offsft.train.phases import Phase
from offsft.train.reference import add_reference
from offsft.train.rows import RowSource
from offsft.train.schedule import learning_rate
from offsft.train.sharded import sharded_loading
from offsft.train.step import not_finite, run_step, step_size
from offsft.train.step_log import StepLog, metrics_line
from offsft.train.sums import Sums
from offsft.train.threads import use_cores
from offsft.train.trackers import Reports, measure_skip


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a training process needs; picklable. Paths are on shared storage of all nodes, or s3:// URLs."""

    run: str
    name: str
    """The model as the recipe names it."""
    model: str
    revision: str | None
    dtype: str
    pickled_weights: bool
    prompt: PromptConfig
    thinking: Thinking
    settings: TrainConfig
    packed: bool
    """Whether rows are packed; else `settings.micro_batch_tokens` is 1, so that each is a micro-batch of its own."""
    seed: int
    rewrites: str
    metrics: str
    board: str
    wandb: str
    skipped: str
    held_out: str
    reference: str
    gap: str
    export: str
    adapter: str
    rescued: str | None
    logs: str


@dataclass(frozen=True)
class TrainingEnd:
    """How training ended: the counts of the rows read, and if it had to stop, the reason.

    `export_notes` say what was mended in the exported folder.
    """

    counts: RowCounts | None = None
    stopped: str | None = None
    export_notes: tuple[str, ...] = ()


def train_loop(config: dict[str, WorkerSpec]) -> TrainingEnd:
    """Train from the last checkpoint, or from the start, to the end, and export the model.

    If training cannot go on, all ranks return together. On an exception Ray Train would restart the workers, only to
    fail at the same step.
    """
    try:
        return _train(config["spec"])
    finally:
        phases.pulse.stop()
        put_output()


def _train(spec: WorkerSpec) -> TrainingEnd:
    import ray.train

    phases.begin(Phase.FETCHING)
    spec = replace(spec, model=download_model(spec.model))
    context = ray.train.get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    _seed(spec.seed)
    settings, objective = spec.settings, spec.settings.objective
    if not settings.gpus_per_worker:
        use_cores(settings.cpus_per_worker, context.get_local_world_size())
    phases.begin(Phase.READING)
    try:
        loaded = load_rows(at(spec.rewrites), settings, sample_seed=spec.seed if settings.gap_rows else None)
    except TrainingError as error:
        return TrainingEnd(stopped=str(error))
    rows: RowSource = loaded.rows
    lengths = loaded.rows.lengths_R
    plan = BatchPlan(lengths, settings.global_batch, settings.micro_batch_tokens, ranks, spec.seed, settings.epochs)
    phases.begin(Phase.LOADING)
    prepare_deepspeed(settings)
    with sharded_loading(settings, spec.dtype):
        model = load_model(spec)
    anchor = load_model(spec).eval() if objective.needs_anchor else None
    phases.begin(Phase.WAITING)
    # Not a barrier: over NCCL that one guesses the GPU, and this one takes the process's own.
    distributed.all_gather_object([None] * ranks, rank)
    phases.begin(Phase.BUILDING)
    try:
        source = find_source(spec) if rank == 0 else None
        engine = start_engine(model, settings, spec.dtype, anchor=anchor, packed=spec.packed)
        engine.module.register_forward_hook(phases.beat)
        if objective.needs_reference:
            phases.begin(Phase.REFERENCE)
            rows = add_reference(engine, loaded.rows, plan, rank, at(spec.reference))
    except OffsftError as error:
        return TrainingEnd(loaded.counts, str(error))
    sample = GapSample.of(loaded.sample, settings, spec.seed, rank, ranks, at(spec.gap))
    phases.begin(Phase.GAP)
    sample.score(engine, "before")
    moving = MovingReference(objective.reference_steps)
    # From here on each rank has its own random numbers; only dropout uses any.
    _seed(spec.seed + rank)
    phases.begin(Phase.RESUMING)
    first_step = _resume(engine, spec.rescued, rank, moving)
    try:
        reports = Reports(spec.run, settings, at(spec.board), at(spec.wandb), rank, first_step)
        # A start from the beginning measures before its first step anew.
        log = StepLog(at(spec.held_out), first_step or -1, write=rank == 0, listeners=reports.held_out_listeners)
        held_out = HeldOut(loaded.held_out, settings, steps=plan.steps, rank=rank, ranks=ranks, log=log)
        _run_steps(engine, rows, plan, spec, rank, first_step, reports, moving, held_out)
    except (ConfigError, TrainingError) as error:
        return TrainingEnd(loaded.counts, str(error))
    reports.finish()
    phases.begin(Phase.GAP)
    sample.score(engine, "after")
    phases.begin(Phase.EXPORTING)
    weights = gather_weights(engine, zero3=settings.zero_stage == 3, rank=rank)
    if weights is None or source is None:
        return TrainingEnd(loaded.counts)
    notes, failure = try_export(lambda: export_weights(spec, model, weights, source), run=str(at(spec.export).parent))
    return TrainingEnd(loaded.counts, failure, tuple(notes))


def _run_steps(
    engine: Any,
    rows: RowSource,
    plan: BatchPlan,
    spec: WorkerSpec,
    rank: int,
    first_step: int,
    reports: Reports,
    moving: MovingReference,
    held_out: HeldOut,
) -> None:
    """Run all steps from `first_step` on: a line per step, a checkpoint every `train.checkpoint_steps` and at the end."""
    import ray.train

    # Not print: Ray Train also sends that to its own log, so the line would appear here twice.
    sys.stderr.write(f"rank {rank} of {plan.ranks}: training from step {first_step + 1} to {plan.steps}\n")
    skips = StepLog(at(spec.skipped), first_step, write=rank == 0, listeners=[partial(measure_skip, spec.run)])
    metrics = StepLog(at(spec.metrics), first_step, write=rank == 0, listeners=reports.listeners)
    if not first_step:
        held_out.measure(engine, 0)
    phases.begin(Phase.TRAINING)
    for step in range(first_step, plan.steps):
        started_s = time.monotonic()
        may_skip = skips.lines < spec.settings.skip_steps
        sums, rate = train_step(engine, rows, plan, step, rank, spec.settings, may_skip=may_skip, moving=moving)
        if sums.skipped:
            skips.add({"step": step + 1, "rows": [rows[i].id for i in plan.rows(step)]})
        else:
            seconds = time.monotonic() - started_s
            metrics.add(metrics_line(step, plan, sums, rate, step_size(rows, plan, step).loss_normalizer, seconds))
        held_out.measure(engine, step + 1)
        # Also after the last step: the export begins from here again if it fails.
        if step + 1 == plan.steps or (step + 1) % spec.settings.checkpoint_steps == 0:
            phases.begin(Phase.SAVING)
            _save(engine, step + 1, spec.run, rank, moving)
            phases.begin(Phase.TRAINING)
        else:
            ray.train.report({"step": step + 1})


def train_step(
    engine: Any,
    rows: RowSource,
    plan: BatchPlan,
    step: int,
    rank: int,
    settings: TrainConfig,
    *,
    may_skip: bool = False,
    moving: MovingReference | None = None,
) -> tuple[Sums, float]:
    """Run one optimizer step of the plan; returns its sums and learning rate.

    Raises:
        TrainingError: loss or gradient is not finite; on all ranks together, and before a checkpoint could keep it.
    """
    rate = learning_rate(
        step, peak=settings.learning_rate, steps=plan.steps, warmup=settings.warmup, schedule=settings.schedule
    )
    if moving:
        moving.refresh(engine, rows, plan, step, rank)
    sums = run_step(
        engine,
        moving.of(rows) if moving else rows,
        plan.micro_batches(step, rank),
        step_size(rows, plan, step),
        ranks=plan.ranks,
        learning_rate=rate,
        progress=step / plan.steps,
        needs_batch_loss=settings.objective.needs_batch_loss,
        frozen=settings.objective.needs_reference,
        may_skip=may_skip,
    )
    if not sums.finite and not sums.skipped:
        raise not_finite(sums, rows, plan, step)
    return sums, rate


def load_model(spec: WorkerSpec) -> Any:
    """The model before training."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        spec.model,
        revision=spec.revision,
        dtype=getattr(torch, spec.dtype),
        use_safetensors=None if spec.pickled_weights else True,
        trust_remote_code=False,
    )


def find_source(spec: WorkerSpec) -> Source:
    """The model that is trained, with what its export needs of it.

    Raises:
        ModelError: its tokenizer cannot be used.
    """
    prompts = load_prompts(spec.model, spec.revision, spec.prompt, spec.thinking)
    return Source(spec.name, files_but_weights(spec.model, spec.revision), prompts.end_of_turn)


def export_weights(spec: WorkerSpec, model: Any, weights: dict[str, torch.Tensor], source: Source) -> list[str]:
    """Export trained weights, with adapters merged into a model as it was before training; returns the export's notes."""
    lora = spec.settings.lora
    if lora.rank:
        fresh = load_model(spec)
        model, weights = merge_adapter(fresh, weights, lora, at(spec.adapter) if lora.keep_adapter else None)
    return export(model, weights, source, at(spec.export))


def _resume(engine: Any, rescued: str | None, rank: int, moving: MovingReference) -> int:
    """Load the last checkpoint that Ray Train knows, else the rescued one; returns the number of completed steps."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        if not rescued:
            return 0
        with local_copy(at(rescued)) as folder:
            return load_shards(engine, folder, rank, moving)
    with checkpoint.as_directory() as folder:
        return load_shards(engine, folder, rank, moving)


def _save(engine: Any, step: int, run: str, rank: int, moving: MovingReference) -> None:
    """Save this rank's shards; Ray Train merges those of all ranks into one checkpoint."""
    import ray.train

    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        save_shards(engine, folder, step, rank, moving)
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    run_metrics.CHECKPOINT_SECONDS.observe(time.monotonic() - started_s, run=run)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
