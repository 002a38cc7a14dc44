"""What each training process does: the loop under Ray Train, with DeepSpeed inside."""

import math
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from offsft import metrics as told
from offsft.batching import Plan
from offsft.config import Train
from offsft.console import output_to_file, put_output
from offsft.errors import ConfigError, OffsftError, TrainingError
from offsft.model_files import fetched
from offsft.storage import at
from offsft.train.checkpoint import load_shards, local_copy, save_shards
from offsft.train.export import export, gathered_weights
from offsft.train.gap import GapSample
from offsft.train.lora import add_adapters, merged
from offsft.train.measured import Reports, measure_skip
from offsft.train.policy import PolicyLoss
from offsft.train.reference import with_reference
from offsft.train.rows import Row, load_rows
from offsft.train.schedule import learning_rate
from offsft.train.step import run_step
from offsft.train.step_log import StepLog, metrics_line
from offsft.train.sums import Sums
from offsft.train.zero import deepspeed_config


@dataclass(frozen=True)
class WorkerSpec:
    """All that a training process needs; picklable. Paths are on a disk that every node sees, or s3:// URLs."""

    run: str
    model: str
    revision: str | None
    dtype: str
    pickled_weights: bool
    settings: Train
    seed: int
    rewrites: str
    metrics: str
    board: str
    wandb: str
    skipped: str
    reference: str
    gap: str
    export: str
    adapter: str
    rescued: str | None
    logs: str


def train_loop(config: dict[str, WorkerSpec]) -> str | None:
    """Train from the last checkpoint, or from the start, to the end, and export.

    Returns why training cannot go on, where it cannot: all ranks return together. Ray Train would answer an exception
    by starting the workers again, to fail at the same step.
    """
    try:
        return _train(config["spec"])
    finally:
        put_output()


def _train(spec: WorkerSpec) -> str | None:
    import ray.train

    spec = replace(spec, model=fetched(spec.model))
    context = ray.train.get_context()
    rank, ranks = context.get_world_rank(), context.get_world_size()
    output_to_file(at(spec.logs) / f"train-{rank}.log")
    _seed(spec.seed)
    rows: list[Row] = load_rows(at(spec.rewrites), spec.settings).rows
    plan = Plan(
        [row.tokens for row in rows],
        spec.settings.global_batch,
        spec.settings.micro_batch_tokens,
        ranks,
        spec.seed,
        spec.settings.epochs,
    )
    model = _load(spec)
    objective = spec.settings.objective
    anchor = _load(spec).eval() if objective.needs_anchor else None
    try:
        engine = start_engine(model, spec.settings, spec.dtype, anchor=anchor)
        if objective.needs_reference:
            rows = with_reference(engine, rows, plan, rank, at(spec.reference))
    except OffsftError as error:
        return str(error)
    sample = None
    if spec.settings.gap_rows:
        sample = GapSample.draw(at(spec.rewrites), spec.settings, spec.seed, rank, ranks, at(spec.gap))
        sample.score(engine, "before")
    first_step = _resume(engine, spec.rescued)
    try:
        reports = Reports(spec.run, spec.settings, at(spec.board), at(spec.wandb), rank, first_step)
    except ConfigError as error:
        return str(error)
    # Not by print, which Ray Train sends to its own log as well, so that the line would be here twice.
    sys.stderr.write(f"rank {rank} of {ranks}: training from step {first_step + 1} to {plan.steps}\n")
    skips = StepLog(at(spec.skipped), first_step, write=rank == 0, tell=[partial(measure_skip, spec.run)])
    metrics = StepLog(at(spec.metrics), first_step, write=rank == 0, tell=reports.tell)
    for step in range(first_step, plan.steps):
        started_s = time.monotonic()
        may_skip = skips.lines < spec.settings.skip_steps
        try:
            sums, rate = train_step(engine, rows, plan, step, rank, spec.settings, may_skip=may_skip)
        except TrainingError as error:
            return str(error)
        if sums.skipped:
            skips.add({"step": step + 1, "rows": [rows[i].id for i in plan.rows(step)]})
        else:
            seconds = time.monotonic() - started_s
            metrics.add(metrics_line(step, plan, sums, rate, mass_of(rows, plan, step), seconds))
        if step + 1 < plan.steps and (step + 1) % spec.settings.checkpoint_steps == 0:
            _save(engine, step + 1, spec.run)
        else:
            ray.train.report({"step": step + 1})
    reports.finish()
    # What the last step leaves is the export, not a checkpoint that nothing would go on from.
    if sample:
        sample.score(engine, "after")
    weights = gathered_weights(engine, zero3=spec.settings.zero_stage == 3, rank=rank)
    if weights is not None:
        _export(spec, model, weights)
    return None


def start_engine(model: Any, settings: Train, dtype: str, *, anchor: Any | None = None) -> Any:
    """A DeepSpeed engine around the policy and its loss; `anchor` is the policy before training, for ASFT."""
    if settings.gpus_per_worker == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.comm.torch

    if settings.gpus_per_worker == 0:
        # DeepSpeed would compile a kernel of its inference here, for most of a minute; training does not call it.
        deepspeed.comm.torch.build_shm_op = lambda: None
    if settings.lora.rank:
        add_adapters(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        if settings.lora.rank:
            model.enable_input_require_grads()
    policy = PolicyLoss(model, settings.objective, chunk_tokens=settings.head_chunk_tokens, anchor=anchor)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    # Each step sets its own rate. In bfloat16 without ZeRO, DeepSpeed allocates the optimizer's state by a step on zero
    # gradients: at a rate of 0 that decays no weight, and it must not count as Adam's first step either.
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=settings.betas, weight_decay=settings.weight_decay)
    engine, *_ = deepspeed.initialize(
        model=policy, optimizer=optimizer, config=deepspeed_config(settings, dtype), dist_init_required=False
    )
    for state in optimizer.state.values():
        state["step"].zero_()
    if anchor is not None:
        anchor.requires_grad_(False).to(engine.device)
    engine.train()
    return engine


def train_step(
    engine: Any, rows: list[Row], plan: Plan, step: int, rank: int, settings: Train, *, may_skip: bool = False
) -> tuple[Sums, float]:
    """One optimizer step of the plan, and its learning rate.

    Raises:
        TrainingError: loss or gradient is not finite; on all ranks together, and before a checkpoint could keep it.
    """
    rate = learning_rate(
        step, peak=settings.learning_rate, steps=plan.steps, warmup=settings.warmup, schedule=settings.schedule
    )
    ids = plan.rows(step)
    sums = run_step(
        engine,
        rows,
        plan.micro_batches(step, rank),
        mass=mass_of(rows, plan, step),
        ranks=plan.ranks,
        learning_rate=rate,
        needs_batch_loss=settings.objective.needs_batch_loss,
        may_skip=may_skip,
    )
    if not sums.finite and not sums.skipped:
        loss_is_finite = math.isfinite(sums.loss)
        raise TrainingError(
            f"the {'gradient' if loss_is_finite else 'loss'} of step {step + 1} is"
            f" {'not finite' if loss_is_finite else sums.loss}; lower train.learning_rate, or look at the rows"
            f" {', '.join(rows[i].id for i in ids)}"
        )
    return sums, rate


def mass_of(rows: list[Row], plan: Plan, step: int) -> float:
    """What a step's loss is divided by: response tokens, each times the weight of its row's source."""
    return sum(rows[i].mass for i in plan.rows(step)) or 1.0


def _load(spec: WorkerSpec) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        spec.model,
        revision=spec.revision,
        dtype=getattr(torch, spec.dtype),
        use_safetensors=None if spec.pickled_weights else True,
        trust_remote_code=False,
    )


def _load_tokenizer(spec: WorkerSpec) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(spec.model, revision=spec.revision, trust_remote_code=False)


def _export(spec: WorkerSpec, model: Any, weights: dict[str, torch.Tensor]) -> None:
    lora = spec.settings.lora
    if lora.rank:
        model, weights = merged(_load(spec), weights, lora, at(spec.adapter) if lora.keep_adapter else None)
    export(model, _load_tokenizer(spec), weights, at(spec.export))


def _resume(engine: Any, rescued: str | None) -> int:
    """Load the last checkpoint that Ray Train knows, else the rescued one; the number of steps that are done."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        if not rescued:
            return 0
        with local_copy(at(rescued)) as folder:
            return load_shards(engine, folder)
    with checkpoint.as_directory() as folder:
        return load_shards(engine, folder)


def _save(engine: Any, step: int, run: str) -> None:
    """Every rank saves its shards; Ray Train merges them into one checkpoint."""
    import ray.train

    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        save_shards(engine, folder, step)
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))
    told.CHECKPOINT_SECONDS.observe(time.monotonic() - started_s, run=run)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
