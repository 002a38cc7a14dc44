"""However DeepSpeed divides the work, three steps equal a plain PyTorch loop over full logits.

Ranks are real processes (gloo), the engine is the real one, and ZeRO-3 shards every tensor. Its default threshold for
keeping small tensors whole exceeds the tiny model's largest, so it is set to 0.
"""

import json
import math
import os
import random
import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import multiprocessing

from offsft.config import TrainConfig
from offsft.config.objective import Asft, Dft, Idft, Is, IwSft, Kl, Objective, Power, Psft, Sft, Talr
from offsft.losses.objectives import Tokens
from offsft.train.batching import BatchPlan
from offsft.train.loading import load_rows
from offsft.train.rows import Row
from tests.numerics.reference import reference_loss

pytestmark = pytest.mark.e2e

RTOL = 1e-4
"""Relative tolerance for losses, norms and weights between two ways to divide the same float32 work."""

GLOBAL_BATCH, STEPS = 4, 3


@dataclass(frozen=True)
class Case:
    zero_stage: int
    micro_batch_tokens: int
    objective: Objective = field(default_factory=Dft)
    dtype: str = "float32"
    tied: bool = True
    gradient_checkpointing: bool = False
    dropout: bool = False
    offload: str = "none"

    def __str__(self) -> str:
        kind = f"{self.objective.kind}{self.objective.reference_steps or ''}"
        kind += "-frozen" * getattr(self.objective, "frozen", False)
        parts = [f"zero{self.zero_stage}", f"{self.micro_batch_tokens}tokens", kind, self.dtype]
        parts += ["tied" if self.tied else "untied"] + ["recompute"] * self.gradient_checkpointing
        parts += ["dropout"] * self.dropout
        parts += [self.offload] if self.offload != "none" else []
        return "-".join(parts)


WEIGHTS = {"expert": 1.0, "self": 2.0, "guided": 3.0}

SMALL, LARGE = 80, 4096
"""Tokens per micro-batch: about one row, and a rank's whole share of a step."""

OTHERS = [
    Sft(),
    Power(),
    Is(),
    IwSft(tau=3.0),
    Psft(refresh_steps=0),
    Psft(refresh_steps=2),  # refreshed exactly where training is resumed
    Psft(refresh_steps=8),  # taken before the checkpoint and needed after it
    Kl(),
    Asft(coefficient=0.3),
    Idft(warmup=0.3, ramp=0.6),  # ramping in the second step and the third
    Talr(),
    Talr(frozen=True),
]
CASES = [
    *(Case(stage, tokens) for stage in (0, 1, 2, 3) for tokens in (SMALL, LARGE)),
    *(Case(2, SMALL, objective=objective) for objective in OTHERS),
    Case(2, LARGE, objective=IwSft(tau=3.0)),
    Case(3, SMALL, objective=Talr()),
    Case(3, SMALL, objective=Asft(coefficient=0.3)),
    Case(2, SMALL, tied=False),
    Case(3, SMALL, tied=False),
    Case(3, SMALL, gradient_checkpointing=True),
    Case(2, SMALL, offload="optimizer"),
    Case(3, SMALL, offload="optimizer_and_weights"),
    *(Case(stage, SMALL, dtype="bfloat16") for stage in (0, 1, 2, 3)),
    *(Case(stage, SMALL, dropout=True) for stage in (0, 2, 3)),
]


CASES_OF = {1: [case for case in CASES if case.objective == Dft()], 2: CASES}
"""Cases by number of ranks. One rank runs the same code with less communication, so one objective is enough."""


def settings_of(case):
    settings = TrainConfig(
        objective=case.objective,
        source_weights=WEIGHTS,
        zero_stage=case.zero_stage,
        global_batch=GLOBAL_BATCH,
        micro_batch_tokens=case.micro_batch_tokens,
        max_tokens=SMALL,
        learning_rate=1e-2,
        warmup=0.5,
        clip=0.004,  # below the gradient norms of these steps, so that clipping is compared too
        head_chunk_tokens=7,
        gradient_checkpointing=case.gradient_checkpointing,
        dropout=case.dropout,
        held_out_rows=6,
        held_out_every=1,
    )
    # A recipe offloads from GPUs only; here the same code runs on the CPU.
    return settings.model_copy(update={"offload": case.offload})


def make_rows():
    """Ten rows: three steps, the last one short. One row has no response left after truncation, as a long prompt's."""
    draw = random.Random(1)

    def ids(most):
        return [draw.randrange(250) for _ in range(draw.randint(1, most))]

    sources = list(WEIGHTS)
    rows = [Row(f"{i:02d}", sources[i % 3], ids(30), ids(40), weight=WEIGHTS[sources[i % 3]]) for i in range(9)]
    # The tiny model is nearly uniform over its vocabulary.
    sampled = [replace(row, behavior=[draw.uniform(-7, -4) for _ in row.response_ids]) for row in rows[:6]]
    return [*sampled, *rows[6:], Row("09", "expert", ids(30), [])]


def plan_of(case, rows, ranks):
    return BatchPlan([row.tokens for row in rows], GLOBAL_BATCH, case.micro_batch_tokens, ranks, seed=0, epochs=1)


def write_rows(folder, rows):
    """Write the rows as a run's rewrites, from three sources, so that each row keeps its weight."""
    folder.mkdir(exist_ok=True)
    items = [
        {
            "id": row.id,
            "source": row.source,
            "prompt_ids": row.prompt_ids,
            "response_ids": row.response_ids,
            "behavior_logprobs": row.behavior,
        }
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(items), folder / "a.parquet")
    return folder


def load_model(folder, case):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    dropout = {"attention_dropout": 0.3} if case.dropout else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, case.dtype), **dropout)
    if not case.tied:
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 0.02)
        model.config.tie_word_embeddings = False
    return model


@dataclass
class Seen:
    """Rank 0's results for one case."""

    steps: list[tuple[float, float, float]]
    """Mean loss, mean negative log-likelihood and gradient norm per step."""
    resumed_step: tuple[float, float, float]
    """The last step again, by a new engine from the checkpoint before it."""
    weights: dict[str, torch.Tensor]
    resumed_weights: dict[str, torch.Tensor]
    held_out: list[dict[str, float]]
    """Held-out negative log-likelihood by source, before training and after the step before the last."""


def run_cases(rank, ranks, folder, cases, out):
    """Run every case in turn, as one process of a group; rank 0 writes its results and an export per case."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.group", rank=rank, world_size=ranks)
    from offsft.train import engine

    def shard_everything(settings, dtype):
        config = original(settings, dtype)
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return config

    original, engine.deepspeed_config = engine.deepspeed_config, shard_everything
    seen = {str(case): run_case(case, rank, ranks, folder, Path(f"{out}-{case}")) for case in cases}
    if rank == 0:
        torch.save(seen, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run_case(case, rank, ranks, folder, out):
    from offsft.train import worker
    from offsft.train.checkpoint import is_whole, load_shards, read_weights, save_shards
    from offsft.train.engine import start_engine
    from offsft.train.export import Source, export, gather_weights, own_names
    from offsft.train.held_out import HeldOut
    from offsft.train.moving import MovingReference
    from offsft.train.reference import add_reference
    from offsft.train.step_log import StepLog, nll_by_source

    settings, rows = settings_of(case), make_rows()
    plan = plan_of(case, rows, ranks)

    def start():
        """An engine with the policy before training, and the rows with the columns that the objective needs from it."""
        anchor = load_model(folder, case).eval() if case.objective.needs_anchor else None
        engine = start_engine(load_model(folder, case), settings, case.dtype, anchor=anchor)
        torch.manual_seed(rank)
        moving = MovingReference(case.objective.reference_steps)
        if not case.objective.needs_reference:
            return engine, rows, moving
        everything = settings.model_copy(update={"held_out_rows": 0})
        columns = load_rows(write_rows(Path(f"{out}-rows{rank}"), rows), everything).rows
        return engine, add_reference(engine, columns, plan, rank, Path(f"{out}-reference")), moving

    def step(engine, number):
        sums, _ = worker.train_step(engine, known, plan, number, rank, settings, moving=moving)
        normalizer = worker.step_size(rows, plan, number).loss_normalizer
        return sums.loss / normalizer, sums.nll / sums.tokens, sums.grad_norm

    def skip_a_step(engine):
        """Skip one step for a non-finite loss and one for a gradient; neither affects the later steps."""
        size_of = worker.step_size
        broken = [replace(row, weight=math.nan) for row in known]

        def size_without_normalizer(*given):
            return replace(size_of(*given), loss_normalizer=math.nan)

        # A moving reference is taken on the first step's rows.
        for chosen, other in ((broken, size_of), (known, size_without_normalizer)):
            worker.step_size = other
            sums, _ = worker.train_step(engine, moving.of(chosen), plan, 0, rank, settings, may_skip=True)
            worker.step_size = size_of
            assert sums.skipped, case
            assert math.isfinite(sums.loss) is (chosen is known), case

    def copy_of_weights(engine):
        weights = gather_weights(engine, zero3=case.zero_stage == 3, rank=rank)
        return None if weights is None else {name: tensor.clone() for name, tensor in weights.items()}

    engine, known, moving = start()
    steps = [step(engine, 0), step(engine, 1)]
    if case.zero_stage < 3:
        skip_a_step(engine)
    # As under Ray Train: each rank writes into a separate folder, and these are merged into one.
    part = Path(f"{out}-part{rank}")
    save_shards(engine, str(part), 2, rank, moving)
    shutil.copytree(part, out / "checkpoint", dirs_exist_ok=True)
    torch.distributed.barrier()
    assert is_whole(out / "checkpoint", ranks, case.zero_stage), case
    assert case.zero_stage == 0 or not is_whole(out / "checkpoint", ranks + 1, case.zero_stage), case
    held = copy_of_weights(engine)
    if held is not None:
        step_number, stored = read_weights(str(out / "checkpoint"), frozen=False)
        assert step_number == 2
        for name, tensor in own_names(stored).items():
            assert torch.equal(tensor.to(held[name].dtype), held[name]), f"{case}: {name} of the checkpoint is another"
    steps.append(step(engine, 2))
    weights = copy_of_weights(engine)
    if weights is not None:
        export(load_model(folder, case), weights, Source("tiny", Path(folder), end_of_turn=3), out / "model")
    engine.destroy()

    engine, known, moving = start()
    held_out_rows = load_rows(write_rows(Path(f"{out}-held{rank}"), rows), settings).held_out
    log = StepLog(out / "held_out.jsonl", 0, write=rank == 0)
    held_out = HeldOut(held_out_rows, settings, steps=STEPS, rank=rank, ranks=ranks, log=log)
    held_out.measure(engine, 0)
    assert load_shards(engine, str(out / "checkpoint"), rank, moving) == 2
    held_out.measure(engine, 2)
    resumed_step, resumed_weights = step(engine, 2), copy_of_weights(engine)
    engine.destroy()
    if rank != 0:
        return None
    lines = map(json.loads, (out / "held_out.jsonl").read_text().splitlines())
    return Seen(steps, resumed_step, weights, resumed_weights, [nll_by_source(line) for line in lines])


def reference(folder, case):
    """The same three steps in the plain float32 loop, which uses only the case's objective and weights."""
    return plain_loop(folder, Case(0, LARGE, objective=case.objective, tied=case.tied))


@cache
def plain_loop(folder, case):
    """Three steps with full logits and autograd, without DeepSpeed: the steps' figures, and the model after them."""
    from offsft.train.schedule import learning_rate

    settings, rows = settings_of(case), make_rows()
    model, plan = load_model(folder, case), plan_of(case, rows, 1)
    before = load_model(folder, case)
    matrices, vectors = (
        [p for p in model.parameters() if (p.dim() > 1) is wanted and p.requires_grad] for wanted in (True, False)
    )
    assert len(vectors) == 5, "the norms' weights, which do not decay"
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=settings.betas,
    )

    def logits_of(policy, row):
        return policy(torch.tensor([row.prompt_ids + row.response_ids])).logits[0, len(row.prompt_ids) - 1 : -1]

    def logprobs_of(policy, row):
        targets = torch.tensor(row.response_ids, dtype=torch.long)[:, None]
        return logits_of(policy, row).log_softmax(-1).gather(1, targets)[:, 0]

    steps = []
    for step in range(plan.steps):
        if case.objective.reference_steps and step % case.objective.reference_steps == 0:
            before.load_state_dict(model.state_dict())
        chosen = [row for row in (rows[i] for i in plan.rows(step)) if row.response_ids]
        tokens, loss_normalizer = (
            sum(len(row.response_ids) for row in chosen),
            sum(row.loss_normalizer for row in chosen),
        )
        with torch.no_grad():
            weighing = before if getattr(case.objective, "frozen", False) else model
            batch_loss = float(torch.tensor([-logprobs_of(weighing, row).mean() for row in chosen]).quantile(0.5))
        nll = loss = torch.zeros((), dtype=torch.float64)
        for row in chosen:
            length = len(row.response_ids)
            with torch.no_grad():
                reference_logits = logits_of(before, row).double()
                reference_logprobs = logprobs_of(before, row)
            known = Tokens(
                weight_T=torch.full((length,), row.weight),
                row_T=torch.zeros(length, dtype=torch.long),
                reference_T=reference_logprobs,
                behavior_T=torch.tensor(row.behavior or [0.0] * length),
                batch_loss=batch_loss,
                progress=step / plan.steps,
            )
            nll = nll - logprobs_of(model, row).sum() / tokens
            targets = torch.tensor(row.response_ids)
            loss = (
                loss
                + reference_loss(case.objective, logits_of(model, row).double(), targets, known, reference_logits)
                / loss_normalizer
            )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(
                step, peak=settings.learning_rate, steps=STEPS, warmup=settings.warmup, schedule=settings.schedule
            )
        optimizer.step()
        optimizer.zero_grad()
        steps.append((loss.item(), nll.item(), norm.item()))
    return torch.tensor(steps), model


@pytest.fixture(scope="module")
def seen(tiny_model, tmp_path_factory):
    """The results of one and of two ranks for every case, and the folder with their exports."""
    out = tmp_path_factory.mktemp("ranks")
    for ranks in (1, 2):
        multiprocessing.spawn(run_cases, (ranks, tiny_model, CASES_OF[ranks], str(out / str(ranks))), nprocs=ranks)
    return {ranks: torch.load(out / str(ranks), weights_only=False) for ranks in (1, 2)} | {"folder": out}


def on_ranks(cases):
    """Parametrize a test by case and by the number of ranks that run it."""
    pairs = [(case, ranks) for ranks in (1, 2) for case in cases if case in CASES_OF[ranks]]
    return pytest.mark.parametrize(("case", "ranks"), pairs, ids=[f"{case}-{ranks}ranks" for case, ranks in pairs])


FLOAT32 = [case for case in CASES if case.dtype == "float32" and not case.dropout]


@on_ranks(FLOAT32)
def test_three_steps_equal_the_plain_loop(seen, tiny_model, case, ranks):
    got = seen[ranks][str(case)]
    want_steps, want_model = reference(tiny_model, case)
    assert len(got.steps) == STEPS
    assert (want_steps[:, 2] > settings_of(case).clip).all(), "clipping would go untested"
    torch.testing.assert_close(torch.tensor(got.steps), want_steps, rtol=RTOL, atol=0)
    for name, want in want_model.named_parameters():
        # Adam divides by the gradient's magnitude: if that is nearly 0, rounding decides the direction of a weight.
        near = torch.isclose(got.weights[name], want, rtol=1e-3, atol=1e-4)
        assert near.float().mean() > 0.999, name


@on_ranks([case for case in CASES if case.dtype == "bfloat16"])
def test_bfloat16_stays_near_float32(seen, tiny_model, case, ranks):
    want_steps, _ = reference(tiny_model, case)
    torch.testing.assert_close(torch.tensor(seen[ranks][str(case)].steps), want_steps, rtol=0.01, atol=0)


@on_ranks([case for case in CASES if case.dropout])
def test_dropout_is_there_where_it_is_asked_for(seen, case, ranks):
    """In the first step, before which the weights are the same; the gradient shows it best in a nearly uniform model."""
    dropped = seen[ranks][str(case)].steps[0]
    without = seen[ranks][str(replace(case, dropout=False))].steps[0]
    assert abs(dropped[2] / without[2] - 1) > 10 * RTOL


@on_ranks(CASES)
def test_resuming_and_measuring_held_out_rows_change_nothing(seen, case, ranks):
    """Held-out rows were measured before the resumed step alone."""
    got = seen[ranks][str(case)]
    assert got.resumed_step == got.steps[-1]
    assert all(torch.equal(got.resumed_weights[name], tensor) for name, tensor in got.weights.items())


@on_ranks(FLOAT32)
def test_the_held_out_likelihood_is_that_of_the_whole_rows(seen, tiny_model, tmp_path, case, ranks):
    before, later = seen[ranks][str(case)].held_out
    held_out = load_rows(write_rows(tmp_path, make_rows()), settings_of(case)).held_out
    assert before == pytest.approx(plain_nll(load_model(tiny_model, case), held_out), rel=1e-5)
    assert len(before) > 2
    assert all(later[source] != nll for source, nll in before.items())


@torch.no_grad()
def plain_nll(model, rows):
    """The mean negative log-likelihood of the responses' tokens, by source and in all, from full logits in float64."""
    nlls = {source: [] for source in [*rows.sources, "all"]}
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        logprobs = model(ids).logits[0, len(row.prompt_ids) - 1 : -1].double().log_softmax(-1)
        found = [-logprobs[place, token].item() for place, token in enumerate(row.response_ids)]
        nlls[row.source] += found
        nlls["all"] += found
    return {source: sum(found) / len(found) for source, found in nlls.items() if found}


@on_ranks(FLOAT32)
def test_the_exported_model_gives_the_trained_logits(seen, tiny_model, case, ranks):
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(seen["folder"] / f"{ranks}-{case}" / "model", dtype=torch.float32)
    trained = load_model(tiny_model, case)
    # Strict: no name may be missing or left over. A tied head is listed as well as the embedding that it shares.
    trained.load_state_dict(seen[ranks][str(case)].weights)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(exported(ids).logits, trained(ids).logits, rtol=0, atol=0)
        assert not torch.allclose(exported(ids).logits, load_model(tiny_model, case)(ids).logits, atol=0.1)
    shared = exported.get_output_embeddings().weight is exported.get_input_embeddings().weight
    assert shared is case.tied


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_export_of_zero3_is_that_of_zero0(seen, ranks):
    whole, sharded = (seen[ranks][str(Case(stage, SMALL))].weights for stage in (0, 3))
    assert whole.keys() == sharded.keys()
    for name, tensor in whole.items():
        assert torch.isclose(sharded[name], tensor, rtol=1e-3, atol=1e-4).float().mean() > 0.999, name
