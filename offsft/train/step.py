"""One optimizer step: packed micro-batches through the policy and the fused head, normalized once, globally."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from offsft.errors import TrainingError
from offsft.losses.fused_head import HeadOutput
from offsft.losses.objectives import Tokens
from offsft.train.batching import BatchPlan, MicroBatch
from offsft.train.policy import run_policy
from offsft.train.rows import RowSource, pack
from offsft.train.sums import EMPTY, Adder, Sums


@dataclass(frozen=True, slots=True)
class StepSize:
    """The size of a whole step over all ranks, known from its plan alone."""

    loss_normalizer: float
    """Divisor of the loss: response tokens, each times the weight of its row's source."""
    row_tokens: int
    """Prompt and response tokens."""
    response_tokens: int


def step_size(rows: RowSource, plan: BatchPlan, step: int) -> StepSize:
    """The size of a step, summed over its rows."""
    chosen = [rows[i] for i in plan.rows(step)]
    return StepSize(
        sum(row.loss_normalizer for row in chosen) or 1.0,
        sum(row.tokens for row in chosen),
        sum(len(row.response_ids) for row in chosen),
    )


def not_finite(sums: Sums, rows: RowSource, plan: BatchPlan, step: int) -> TrainingError:
    """An error that names the rows with non-finite numbers, or all rows of the step where none is known."""
    loss_is_finite = math.isfinite(sums.loss)
    suspects = sums.broken_rows or plan.rows(step)
    return TrainingError(
        f"the {'gradient' if loss_is_finite else 'loss'} of step {step + 1} is"
        f" {'not finite' if loss_is_finite else sums.loss}; lower train.learning_rate, or look at the"
        f" {'row' if len(suspects) == 1 else 'rows'} {', '.join(rows[i].id for i in suspects)}"
    )


def run_step(
    engine: Any,
    rows: RowSource,
    batches: Sequence[MicroBatch],
    size: StepSize,
    *,
    ranks: int,
    learning_rate: float,
    progress: float = 1.0,
    needs_batch_loss: bool = False,
    frozen: bool = False,
    may_skip: bool = False,
) -> Sums:
    """Forward, backward and one update on this rank's micro-batches of a global batch.

    DeepSpeed averages gradients over ranks; the factor `ranks` undoes that, so that the gradient is that of the sum
    over the global batch divided by its loss normalizer. The router loss is a mean over a micro-batch's tokens,
    weighted by the micro-batch's share of the global batch's tokens.

    A non-finite loss is returned, on every rank, before any update. Where the step `may_skip`, the gradient is cleared
    too, and training may go on with the next step. A step without response tokens changes nothing: AdamW would still
    decay the weights, and move them by its momentum.
    """
    if not size.response_tokens:
        return EMPTY
    adder, suspects = Adder(engine.device), _Suspects()
    batch_loss = _batch_loss(engine, rows, batches, ranks, frozen=frozen) if needs_batch_loss else None
    for number, batch in enumerate(batches):
        packed = pack(rows, batch).knowing(batch_loss, progress).to(engine.device)
        out, router_loss = run_policy(engine, packed)
        computed = packed.input_ids_1T.numel()
        row_tokens = computed if batch else 0
        router_part = router_loss * (row_tokens / size.row_tokens)
        has_router = router_loss.requires_grad
        adder.add(
            out,
            row_tokens=row_tokens,
            computed_tokens=computed,
            router_loss=router_part if has_router else None,
        )
        suspects.add(batch, packed.tokens, out)
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        loss = out.loss * (ranks / size.loss_normalizer)
        engine.backward(loss + ranks * router_part if has_router else loss)
    sums = adder.total(ranks)
    if not math.isfinite(sums.loss):
        sums = replace(sums, broken_rows=suspects.found(ranks))
        if not may_skip:
            return sums
    return _update(engine, sums, learning_rate, may_skip=may_skip)


def _update(engine: Any, sums: Sums, learning_rate: float, *, may_skip: bool) -> Sums:
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    # Without sharding and in float32 DeepSpeed does not report the norm it clips by; it is that of the gradients here.
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    own_norm = float(nn.utils.get_total_norm(gradients)) if gradients else math.nan
    if may_skip and _updates_by_itself(engine) and not math.isfinite(own_norm):
        engine.zero_grad()
        return replace(sums, skipped=True)
    engine.step()
    norm = engine.get_global_grad_norm()
    skipped = may_skip and not engine.was_step_applied()
    return replace(sums, grad_norm=own_norm if norm is None else float(norm), skipped=skipped)


class _Suspects:
    """Records which tokens of a step have a non-finite number; read, and waited for, only on a failure."""

    def __init__(self) -> None:
        self._seen: list[tuple[MicroBatch, torch.Tensor, torch.Tensor]] = []

    def add(self, batch: MicroBatch, tokens: Tokens, out: HeadOutput) -> None:
        fine_P = out.logprobs_T.isfinite() & out.slopes_T.isfinite() & tokens.weight_T.isfinite()
        if len(out.ratios_T):
            fine_P = fine_P & out.ratios_T.isfinite()
        self._seen.append((batch, tokens.row_T, ~fine_P))

    def found(self, ranks: int) -> tuple[int, ...]:
        """Indices of the rows with such tokens, over all ranks. Collective."""
        own = {batch[row] for batch, row_T, broken_T in self._seen for row in row_T[broken_T].unique().tolist()}
        together: list[Any] = [own]
        if ranks > 1:
            together = [None] * ranks
            distributed.all_gather_object(together, own)
        return tuple(sorted(set().union(*together)))


def _updates_by_itself(engine: Any) -> bool:
    """Whether torch's optimizer updates the weights; DeepSpeed's own skip a step with a non-finite gradient."""
    return not engine.zero_optimization() and not engine.bfloat16_enabled()


def score(engine: Any, rows: RowSource, batches: Sequence[MicroBatch]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row's index with the log-probs (nats) of its response tokens, micro-batch by micro-batch.

    Collective where the weights are sharded: every rank needs the same number of micro-batches.
    """
    was_training = engine.training
    engine.eval()
    for batch in batches:
        packed = pack(rows, batch).to(engine.device)
        with torch.no_grad():
            logprobs = engine(packed, score=True).cpu().split([len(rows[index].response_ids) for index in batch])
        yield from ((index, part.numpy()) for index, part in zip(batch, logprobs, strict=True))
    engine.train(was_training)


def even_out(batches: list[MicroBatch], ranks: int) -> list[MicroBatch]:
    """A rank's micro-batches, padded with empty ones until all ranks have the same number. Collective."""
    if ranks == 1:
        return batches
    counts: list[Any] = [0] * ranks
    distributed.all_gather_object(counts, len(batches))
    return batches + [[] for _ in range(max(counts) - len(batches))]


def _batch_loss(engine: Any, rows: RowSource, batches: Sequence[MicroBatch], ranks: int, *, frozen: bool) -> float:
    """Median over the global batch's rows of their mean -log p, under the current policy or that before training."""
    if frozen:
        known = (rows[index].reference for batch in batches for index in batch)
        scored = (np.asarray(logprobs) for logprobs in known if logprobs is not None)
    else:
        scored = (logprobs for _, logprobs in score(engine, rows, batches))
    own = [-float(logprobs.mean(dtype=np.float64)) for logprobs in scored if len(logprobs)]
    together: list[Any] = [own]
    if ranks > 1:
        together = [None] * ranks
        distributed.all_gather_object(together, own)
    losses = [loss for part in together for loss in part if math.isfinite(loss)]  # the others' rows are named later
    return statistics.median(losses) if losses else 1.0
