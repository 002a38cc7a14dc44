"""Twenty steps of a small model follow the trace that is committed next to this file.

`OFFSFT_WRITE_TRACE=1 pytest tests/e2e/test_train_trace.py` rewrites it after an intended change of the numbers.
"""

import json
import os
import random
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from offsft.config import TrainConfig
from offsft.train.batching import BatchPlan
from offsft.train.rows import Row

pytestmark = pytest.mark.e2e

TRACE = Path(__file__).with_name("train_trace.json")
RTOL = 1e-3
"""Relative tolerance for float32 sums in another order, on another processor, over twenty steps."""
STEPS = 20


def run(_, folder, out):
    os.environ.update(DS_ACCELERATOR="cpu", RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.group", rank=0, world_size=1)
    from transformers import AutoModelForCausalLM

    from offsft.train import worker
    from offsft.train.engine import start_engine

    draw = random.Random(5)
    rows = [
        Row(f"{i:02d}", "self", [draw.randrange(250) for _ in range(9)], [draw.randrange(250) for _ in range(12)])
        for i in range(40)
    ]
    seen = {}
    for kind in ("sft", "dft"):
        settings = TrainConfig(
            objective={"kind": kind}, global_batch=4, micro_batch_tokens=64, max_tokens=64, epochs=2, learning_rate=3e-3
        )
        plan = BatchPlan([row.tokens for row in rows], 4, 64, 1, seed=0, epochs=2)
        assert plan.steps == STEPS
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        engine = start_engine(model, settings, "float32")
        steps = [worker.train_step(engine, rows, plan, step, 0, settings)[0] for step in range(STEPS)]
        seen[kind] = {
            "loss": [sums.loss / sums.tokens for sums in steps],
            "nll": [sums.nll / sums.tokens for sums in steps],
            "grad_norm": [sums.grad_norm for sums in steps],
        }
        engine.destroy()
    Path(out).write_text(json.dumps(seen))


def test_twenty_steps_follow_the_trace(tiny_model, tmp_path):
    multiprocessing.spawn(run, (tiny_model, str(tmp_path / "seen")), nprocs=1)
    seen = json.loads((tmp_path / "seen").read_text())
    if os.environ.get("OFFSFT_WRITE_TRACE"):
        TRACE.write_text(json.dumps(seen, indent=1) + "\n")
        pytest.skip("the trace was written anew")
    want = json.loads(TRACE.read_text())
    assert sum(want["sft"]["nll"][-5:]) < sum(want["sft"]["nll"][:5]) - 1, "the trace is of a model that learns"
    for kind, metrics in want.items():
        for name, values in metrics.items():
            assert seen[kind][name] == pytest.approx(values, rel=RTOL), f"{kind} {name}"
