"""In bfloat16 the gradient of 64 micro-batches is as close to the float32 one as that of a single micro-batch."""

import os
import random

import pytest
import torch
from torch import multiprocessing

from offsft.config import TrainConfig
from offsft.train.batching import BatchPlan
from offsft.train.rows import Row

pytestmark = pytest.mark.e2e

ROWS, LONGEST = 64, 24
ONE, MANY = ROWS * LONGEST, LONGEST
"""Tokens per micro-batch: the whole step in one, and one row in each of 64."""
STAGES = (0, 1, 2, 3)


def make_rows():
    draw = random.Random(2)
    return [
        Row(
            f"{i:02d}",
            "self",
            [draw.randrange(250) for _ in range(8)],
            [draw.randrange(250) for _ in range(LONGEST - 8)],
        )
        for i in range(ROWS)
    ]


def gradient(folder, dtype, stage, micro_batch_tokens, rank, ranks):
    """The whole step's gradient as DeepSpeed hands it to the optimizer, and the number of its micro-batches."""
    from deepspeed.utils import safe_get_full_grad
    from transformers import AutoModelForCausalLM

    from offsft.train import step, worker
    from offsft.train.engine import start_engine

    settings = TrainConfig(
        zero_stage=stage, micro_batch_tokens=micro_batch_tokens, max_tokens=LONGEST, global_batch=ROWS
    )
    rows = make_rows()
    plan = BatchPlan([row.tokens for row in rows], ROWS, micro_batch_tokens, ranks, seed=0, epochs=1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    engine = start_engine(model, settings, dtype)
    found = []

    def look(engine, sums, *_, **__):
        parts = [p.grad if dtype == "float32" and not stage else safe_get_full_grad(p) for p in model.parameters()]
        found.extend(part.float().flatten().cpu() for part in parts)
        return sums

    update, step._update = step._update, look
    step.run_step(
        engine, rows, plan.micro_batches(0, rank), worker.step_size(rows, plan, 0), ranks=ranks, learning_rate=0.0
    )
    step._update = update
    engine.destroy()
    return torch.cat(found), len(plan.micro_batches(0, rank))


def run(rank, ranks, folder, out):
    os.environ.update(DS_ACCELERATOR="cpu", RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.group", rank=rank, world_size=ranks)
    want, _ = gradient(folder, "float32", 2, ONE, rank, ranks)
    errors = {}
    for stage in STAGES:
        for tokens in (ONE, MANY):
            got, count = gradient(folder, "bfloat16", stage, tokens, rank, ranks)
            errors[stage, count] = float((got - want).norm() / want.norm())
    if rank == 0:
        torch.save(errors, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def bfloat16_model(tiny_model, tmp_path_factory):
    """The tiny model with weights that bfloat16 represents exactly, so that both gradients use the same weights."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("bfloat16")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("ranks", [1, 2])
def test_many_micro_batches_cost_no_precision(bfloat16_model, tmp_path, ranks):
    out = tmp_path / "errors"
    multiprocessing.spawn(run, (ranks, bfloat16_model, str(out)), nprocs=ranks)
    errors = torch.load(out, weights_only=False)
    assert {count for _, count in errors} == {1, ROWS // ranks}
    for stage in STAGES:
        one, many = errors[stage, 1], errors[stage, ROWS // ranks]
        assert one < 0.01, errors
        assert many < 1.1 * one, errors
