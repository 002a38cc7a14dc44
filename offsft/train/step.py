"""One optimizer step: packed micro-batches through the policy and the fused head, divided once by the global count."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import distributed, nn

from offsft.batching import MicroBatch
from offsft.train.policy import loss_of
from offsft.train.rows import Row, pack
from offsft.train.sums import Adder, Sums


def run_step(
    engine: Any,
    rows: Sequence[Row],
    batches: Sequence[MicroBatch],
    *,
    mass: float,
    ranks: int,
    learning_rate: float,
    needs_batch_loss: bool = False,
    may_skip: bool = False,
) -> Sums:
    """Forward, backward and one update on this rank's micro-batches of a global batch.

    `mass` is what the loss is divided by: the global batch's response tokens, each times the weight of its source.
    DeepSpeed averages gradients over ranks; the factor `ranks` undoes that, so that the gradient is that of the sum
    over the global batch divided by its mass. A non-finite loss is returned, on every rank, before any update; where
    the step `may_skip`, the gradient is cleared too, and training may go on with the next one.
    """
    adder = Adder(engine.device)
    batch_loss = _batch_loss(engine, rows, batches, ranks) if needs_batch_loss else None
    for number, batch in enumerate(batches):
        packed = pack(rows, batch).knowing(batch_loss).to(engine.device)
        out = loss_of(engine, packed)
        computed = packed.input_ids_1T.numel()
        adder.add(out, row_tokens=computed if batch else 0, computed_tokens=computed)
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        engine.backward(out.loss * (ranks / mass))
    sums = adder.total(ranks)
    if not math.isfinite(sums.loss) and not may_skip:
        return sums
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    # Without sharding and in float32 DeepSpeed clips by a norm that it does not tell; it is that of the gradients here.
    gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
    own_norm = float(nn.utils.get_total_norm(gradients)) if gradients else math.nan
    if may_skip and _updates_by_itself(engine) and not math.isfinite(own_norm):
        engine.zero_grad()
        return replace(sums, skipped=True)
    engine.step()
    norm = engine.get_global_grad_norm()
    skipped = may_skip and not engine.was_step_applied()
    return replace(sums, grad_norm=own_norm if norm is None else float(norm), skipped=skipped)


def _updates_by_itself(engine: Any) -> bool:
    """Whether torch's optimizer updates the weights; DeepSpeed's own ones leave a step of a non-finite gradient out."""
    return not engine.zero_optimization() and not engine.bfloat16_enabled()


@torch.no_grad()
def score(engine: Any, rows: Sequence[Row], batches: Sequence[MicroBatch]) -> dict[int, list[float]]:
    """Log-probs (nats) of the response tokens of each row in this rank's micro-batches, by the row's index.

    Collective where the weights are sharded: as many micro-batches on every rank.
    """
    was_training = engine.training
    engine.eval()
    found: dict[int, list[float]] = {}
    for batch in batches:
        packed = pack(rows, batch).to(engine.device)
        logprobs = engine(packed, score=True).split([len(rows[index].response_ids) for index in batch])
        found |= {index: part.tolist() for index, part in zip(batch, logprobs, strict=True)}
    engine.train(was_training)
    return found


def _batch_loss(engine: Any, rows: Sequence[Row], batches: Sequence[MicroBatch], ranks: int) -> float:
    """Median over the rows of the global batch of their mean -log p, under the policy as it stands."""
    own = [-sum(logprobs) / len(logprobs) for logprobs in score(engine, rows, batches).values() if logprobs]
    together: list[Any] = [own]
    if ranks > 1:
        together = [None] * ranks
        distributed.all_gather_object(together, own)
    losses = [loss for part in together for loss in part]
    return statistics.median(losses) if losses else 1.0
