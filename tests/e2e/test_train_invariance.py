"""However DeepSpeed divides the work, three steps equal a plain PyTorch loop over full logits.

Ranks are real processes (gloo), the engine is the real one, and ZeRO-3 shards every tensor: its own threshold for
keeping small tensors whole, above the size of the tiny model's largest, is set to 0.
"""

import math
import os
import random
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from offsft.batching import Plan
from offsft.config import Train
from offsft.config.objective import Asft, Dft, Idft, Is, IwSft, Kl, Objective, Power, Psft, Sft, Talr
from offsft.objectives import Tokens
from offsft.train.rows import Row
from tests.numerics.reference import reference_loss

pytestmark = pytest.mark.e2e

RTOL = 1e-4
"""Relative tolerance of losses, norms and weights between two ways to divide the same float32 work."""

GLOBAL_BATCH, STEPS = 4, 3


@dataclass(frozen=True)
class Case:
    zero_stage: int
    micro_batch_tokens: int
    objective: Objective = field(default_factory=Dft)
    dtype: str = "float32"
    tied: bool = True
    gradient_checkpointing: bool = False

    def __str__(self) -> str:
        parts = [f"zero{self.zero_stage}", f"{self.micro_batch_tokens}tokens", self.objective.kind, self.dtype]
        parts += ["tied" if self.tied else "untied"] + ["recompute"] * self.gradient_checkpointing
        return "-".join(parts)


SMALL, LARGE = 80, 4096
"""Tokens of a micro-batch: about one row, and a rank's whole share of a step."""

OTHERS = [Sft(), Power(), Is(), IwSft(tau=3.0), Psft(), Kl(), Asft(coefficient=0.3), Idft(), Talr()]
CASES = [
    *(Case(stage, tokens) for stage in (0, 1, 2, 3) for tokens in (SMALL, LARGE)),
    *(Case(2, SMALL, objective=objective) for objective in OTHERS),
    Case(2, LARGE, objective=IwSft(tau=3.0)),
    Case(3, SMALL, objective=Talr()),
    Case(3, SMALL, objective=Asft(coefficient=0.3)),
    Case(2, SMALL, tied=False),
    Case(3, SMALL, tied=False),
    Case(3, SMALL, gradient_checkpointing=True),
    *(Case(stage, SMALL, dtype="bfloat16") for stage in (0, 1, 2, 3)),
]


CASES_OF = {1: [case for case in CASES if case.objective == Dft()], 2: CASES}
"""By the number of ranks. One rank does what two do, with less between: there one objective is enough."""


def settings_of(case):
    return Train(
        objective=case.objective,
        zero_stage=case.zero_stage,
        global_batch=GLOBAL_BATCH,
        micro_batch_tokens=case.micro_batch_tokens,
        max_tokens=SMALL,
        learning_rate=1e-2,
        warmup=0.5,
        clip=0.004,  # below the gradient norms of these steps, so that clipping is part of what is compared
        head_chunk_tokens=7,
        gradient_checkpointing=case.gradient_checkpointing,
    )


def make_rows():
    """Ten rows: three steps, the last one short. One row has no response left after cutting, as a long prompt's would."""
    draw = random.Random(1)

    def ids(most):
        return [draw.randrange(250) for _ in range(draw.randint(1, most))]

    rows = [Row(f"{i:02d}", "self", ids(30), ids(40), weight=1.0 + i % 3) for i in range(9)]
    # The tiny model gives each of its words about as much.
    sampled = [replace(row, behavior=[draw.uniform(-7, -4) for _ in row.response_ids]) for row in rows[:6]]
    return [*sampled, *rows[6:], Row("09", "expert", ids(30), [])]


def plan_of(case, rows, ranks):
    return Plan([row.tokens for row in rows], GLOBAL_BATCH, case.micro_batch_tokens, ranks, seed=0, epochs=1)


def load_model(folder, case):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, case.dtype))
    if not case.tied:
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight) * 0.02)
        model.config.tie_word_embeddings = False
    return model


@dataclass
class Seen:
    """What rank 0 saw of one case."""

    steps: list[tuple[float, float, float]]
    """Mean loss, mean negative log-likelihood and gradient norm of each step."""
    resumed_step: tuple[float, float, float]
    """The last step once more, by a new engine from the checkpoint before it."""
    weights: dict[str, torch.Tensor]
    resumed_weights: dict[str, torch.Tensor]


def run_cases(rank, ranks, folder, cases, out):
    """One process of a group: every case in turn; rank 0 writes what it saw, and an export of each case."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.group", rank=rank, world_size=ranks)
    from offsft.train import worker

    def shard_everything(settings, dtype):
        config = original(settings, dtype)
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return config

    original, worker.deepspeed_config = worker.deepspeed_config, shard_everything
    seen = {str(case): run_case(case, rank, ranks, folder, Path(f"{out}-{case}")) for case in cases}
    if rank == 0:
        torch.save(seen, out)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def run_case(case, rank, ranks, folder, out):
    from transformers import AutoTokenizer

    from offsft.train import worker
    from offsft.train.checkpoint import is_whole, load_shards, save_shards
    from offsft.train.export import export, gathered_weights
    from offsft.train.reference import with_reference

    settings, rows = settings_of(case), make_rows()
    plan = plan_of(case, rows, ranks)

    def start():
        """An engine on the policy before training, and the rows with what the objective wants to know of it."""
        anchor = load_model(folder, case).eval() if case.objective.needs_anchor else None
        engine = worker.start_engine(load_model(folder, case), settings, case.dtype, anchor=anchor)
        if not case.objective.needs_reference:
            return engine, rows
        return engine, with_reference(engine, rows, plan, rank, Path(f"{out}-reference"))

    def step(engine, number):
        sums, _ = worker.train_step(engine, known, plan, number, rank, settings)
        return sums.loss / worker.mass_of(rows, plan, number), sums.nll / sums.tokens, sums.grad_norm

    def skip_a_step(engine):
        """Once for a loss that is not finite, once for a gradient: neither leaves a trace in what comes after."""
        broken = [replace(row, weight=math.nan) for row in known]
        for chosen, mass_of in ((broken, worker.mass_of), (known, lambda *_: math.nan)):
            original, worker.mass_of = worker.mass_of, mass_of
            sums, _ = worker.train_step(engine, chosen, plan, 0, rank, settings, may_skip=True)
            worker.mass_of = original
            assert sums.skipped, case
            assert math.isfinite(sums.loss) is (chosen is known), case

    def copy_of_weights(engine):
        weights = gathered_weights(engine, zero3=case.zero_stage == 3, rank=rank)
        return None if weights is None else {name: tensor.clone() for name, tensor in weights.items()}

    engine, known = start()
    steps = [step(engine, 0), step(engine, 1)]
    if case.zero_stage < 3:
        skip_a_step(engine)
    # As under Ray Train: each rank writes into a folder of its own, and these are merged into one.
    part = Path(f"{out}-part{rank}")
    save_shards(engine, str(part), 2)
    shutil.copytree(part, out / "checkpoint", dirs_exist_ok=True)
    torch.distributed.barrier()
    assert is_whole(out / "checkpoint", ranks, case.zero_stage), case
    assert case.zero_stage == 0 or not is_whole(out / "checkpoint", ranks + 1, case.zero_stage), case
    steps.append(step(engine, 2))
    weights = copy_of_weights(engine)
    if weights is not None:
        export(load_model(folder, case), AutoTokenizer.from_pretrained(folder), weights, out / "model")
    engine.destroy()

    engine, known = start()
    assert load_shards(engine, str(out / "checkpoint")) == 2
    resumed_step, resumed_weights = step(engine, 2), copy_of_weights(engine)
    engine.destroy()
    return Seen(steps, resumed_step, weights, resumed_weights) if rank == 0 else None


def reference(folder, case):
    """The same three steps with full logits, autograd and nothing of DeepSpeed."""
    from offsft.train.schedule import learning_rate

    settings, rows = settings_of(case), make_rows()
    model, plan = load_model(folder, case), plan_of(case, rows, 1)
    before = load_model(folder, case)
    optimizer = torch.optim.AdamW(model.parameters(), betas=settings.betas, weight_decay=settings.weight_decay)

    def logits_of(policy, row):
        return policy(torch.tensor([row.prompt_ids + row.response_ids])).logits[0, len(row.prompt_ids) - 1 : -1]

    def logprobs_of(policy, row):
        targets = torch.tensor(row.response_ids, dtype=torch.long)[:, None]
        return logits_of(policy, row).log_softmax(-1).gather(1, targets)[:, 0]

    steps = []
    for step in range(plan.steps):
        chosen = [row for row in (rows[i] for i in plan.rows(step)) if row.response_ids]
        tokens, mass = sum(len(row.response_ids) for row in chosen), sum(row.mass for row in chosen)
        with torch.no_grad():
            batch_loss = float(torch.tensor([-logprobs_of(model, row).mean() for row in chosen]).quantile(0.5))
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
            )
            nll = nll - logprobs_of(model, row).sum() / tokens
            targets = torch.tensor(row.response_ids)
            loss = (
                loss
                + reference_loss(case.objective, logits_of(model, row).double(), targets, known, reference_logits)
                / mass
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
    """What one and two ranks saw of every case, and the folder that holds their exports."""
    out = tmp_path_factory.mktemp("ranks")
    for ranks in (1, 2):
        multiprocessing.spawn(run_cases, (ranks, tiny_model, CASES_OF[ranks], str(out / str(ranks))), nprocs=ranks)
    return {ranks: torch.load(out / str(ranks), weights_only=False) for ranks in (1, 2)} | {"folder": out}


def on_ranks(cases):
    """A test of each case on each number of ranks that runs it."""
    pairs = [(case, ranks) for ranks in (1, 2) for case in cases if case in CASES_OF[ranks]]
    return pytest.mark.parametrize(("case", "ranks"), pairs, ids=[f"{case}-{ranks}ranks" for case, ranks in pairs])


FLOAT32 = [case for case in CASES if case.dtype == "float32"]


@on_ranks(FLOAT32)
def test_three_steps_equal_the_plain_loop(seen, tiny_model, case, ranks):
    got = seen[ranks][str(case)]
    want_steps, want_model = reference(tiny_model, case)
    assert len(got.steps) == STEPS
    assert (want_steps[:, 2] > settings_of(case).clip).all(), "clipping would go untested"
    torch.testing.assert_close(torch.tensor(got.steps), want_steps, rtol=RTOL, atol=0)
    for name, want in want_model.named_parameters():
        # Adam divides by the gradient's own size: where that is all but 0, rounding decides which way a weight goes.
        near = torch.isclose(got.weights[name], want, rtol=1e-3, atol=1e-4)
        assert near.float().mean() > 0.999, name


@on_ranks([case for case in CASES if case.dtype == "bfloat16"])
def test_bfloat16_stays_near_float32(seen, tiny_model, case, ranks):
    want_steps, _ = reference(tiny_model, replace(case, dtype="float32"))
    torch.testing.assert_close(torch.tensor(seen[ranks][str(case)].steps), want_steps, rtol=0.01, atol=0)


@on_ranks(CASES)
def test_resuming_changes_nothing(seen, case, ranks):
    got = seen[ranks][str(case)]
    assert got.resumed_step == got.steps[-1]
    assert all(torch.equal(got.resumed_weights[name], tensor) for name, tensor in got.weights.items())


@on_ranks(FLOAT32)
def test_the_exported_model_gives_the_trained_logits(seen, tiny_model, case, ranks):
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(seen["folder"] / f"{ranks}-{case}" / "model", dtype=torch.float32)
    trained = load_model(tiny_model, case)
    # Strict: no name may be missing or left over. A tied head is listed beside the embedding that it shares.
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
