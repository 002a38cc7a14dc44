"""Parts of a step other than the objective: dropout, router balance, decay groups, empty steps, the row at fault."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from offsft.config import TrainConfig
from offsft.config.objective import Dft, Is, Sft
from offsft.errors import ModelError, TrainingError
from offsft.train.batching import BatchPlan
from offsft.train.dropout import turn_off_dropout
from offsft.train.engine import parameter_groups
from offsft.train.policy import PolicyLoss, run_policy
from offsft.train.rows import Row, pack
from offsft.train.worker import train_step

ROWS = [
    Row("a", "self", [5, 6, 7], [8, 9, 10, 11], behavior=[-4.0] * 4),
    Row("b", "guided", [12, 13], [14, 15], behavior=[-4.0] * 2),
    Row("c", "expert", [16], [17, 18, 19, 20, 21, 22]),
]
SIZE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DROPOUTS = {
    "llama": {"attention_dropout": 0.5},
    "gpt2": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
    "falcon": {"attention_dropout": 0.5, "hidden_dropout": 0.5, "alibi": False},
    "opt": {"dropout": 0.5, "word_embed_proj_dim": 32, "ffn_dim": 48},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
MIXTURES = {
    "qwen3_moe": EXPERTS | {"router_aux_loss_coef": 0.5},
    "mixtral": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "router_aux_loss_coef": 0.5,
        "router_jitter_noise": 0.5,
    },
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.5},
}


def tiny(kind, **special):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZE, **special}), dtype=torch.float32)


class PlainEngine:
    """DeepSpeed's interface for a step, in plain torch."""

    device = "cpu"
    training = True

    def __init__(self, policy, weight_decay=0.1):
        self.module = policy.train()
        self.optimizer = torch.optim.AdamW(parameter_groups(policy, weight_decay))

    def __call__(self, packed, **options):
        return self.module(packed, **options)

    def set_gradient_accumulation_boundary(self, _):
        pass

    def backward(self, loss):
        loss.backward()

    def step(self):
        self.optimizer.step()
        self.optimizer.zero_grad()

    def zero_grad(self):
        self.optimizer.zero_grad()

    def get_global_grad_norm(self):
        return None

    def zero_optimization(self):
        return False

    def bfloat16_enabled(self):
        return False


def one_step(engine, rows, objective, **options):
    settings = TrainConfig(objective=objective, learning_rate=1e-2, warmup=0)
    plan = BatchPlan([row.tokens for row in rows], len(rows), 64, 1, 0, 1)
    return train_step(engine, rows, plan, 0, 0, settings, **options)[0]


def losses_and_gradient(policy):
    policy.zero_grad()
    head, balance = run_policy(policy, pack(ROWS, [0, 1, 2]))
    (head.loss + balance).backward()
    gradients = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
    return head.loss.detach(), torch.cat(gradients)


def logits_and_gradient(model):
    model.zero_grad()
    logits = model(torch.tensor([[5, 6, 7, 8, 9, 10]]), use_cache=False).logits
    logits.logsumexp(2).sum().backward()
    return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("recompute", [False, True], ids=["plain", "recomputed"])
@pytest.mark.parametrize("kind", DROPOUTS)
def test_without_dropout_training_computes_what_sampling_did(kind, recompute):
    model = tiny(kind, **DROPOUTS[kind])
    rates = model.config.to_dict()
    want = logits_and_gradient(model.eval())
    if recompute:
        model.gradient_checkpointing_enable()
    turn_off_dropout(model.train())
    torch.testing.assert_close(logits_and_gradient(model), want)
    assert model.config.to_dict() == rates, "the exported configuration is the source's"


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_off_unless_it_is_asked_for(dropout):
    policy = PolicyLoss(tiny("llama", attention_dropout=0.5), Sft(), dropout=dropout)
    want, _ = losses_and_gradient(policy.eval())
    got, _ = losses_and_gradient(policy.train())
    assert bool(torch.isclose(got, want)) is not dropout


def test_recomputed_layers_do_recompute():
    model = tiny("llama")
    model.gradient_checkpointing_enable()
    policy = PolicyLoss(model, Sft()).train()
    calls = []
    model.model.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    losses_and_gradient(policy)
    assert len(calls) == 2


@pytest.mark.parametrize("recompute", [False, True], ids=["plain", "recomputed"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_the_router_loss_is_the_models_own(kind, recompute):
    model = tiny(kind, **MIXTURES[kind])
    packed = pack(ROWS, [0, 1, 2])
    ids, positions = packed.input_ids_1T, packed.position_ids_1T
    model.eval()
    want = 0.5 * model(ids, position_ids=positions, output_router_logits=True, use_cache=False).aux_loss
    want.backward()
    gates = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("gate" in name or "router" in name for name in gates)
    model.zero_grad()
    policy = PolicyLoss(model, Dft(), router_weight=None)
    if recompute:
        model.gradient_checkpointing_enable()
    got = run_policy(policy.train(), packed).router_loss
    got.backward()
    torch.testing.assert_close(got.detach(), want.detach())
    for name, parameter in model.named_parameters():
        if name in gates:
            torch.testing.assert_close(parameter.grad, gates[name], msg=name)


def test_the_router_loss_is_part_of_the_step_in_its_share_of_the_tokens():
    """The other micro-batch has one row more: the balance of each is weighted by its tokens."""

    def engine():
        return PlainEngine(PolicyLoss(tiny("qwen3_moe", **MIXTURES["qwen3_moe"]), Sft(), router_weight=None))

    settings = TrainConfig(learning_rate=1e-2, warmup=0, micro_batch_tokens=16, max_tokens=16)
    plan = BatchPlan([row.tokens for row in ROWS], 3, 9, 1, 0, 1)
    batches = plan.micro_batches(0, 0)
    assert len(batches) > 1
    one = engine()
    sums, _ = train_step(one, ROWS, plan, 0, 0, settings)
    policy = engine().module
    tokens = sum(row.tokens for row in ROWS)
    want = sum(
        run_policy(policy, pack(ROWS, batch)).router_loss.item() * sum(ROWS[i].tokens for i in batch) / tokens
        for batch in batches
    )
    assert sums.router_loss == pytest.approx(want, rel=1e-5)
    assert sums.metrics(loss_normalizer=1, seconds=1)["loss/router"] == sums.router_loss
    without = PlainEngine(PolicyLoss(tiny("qwen3_moe", **MIXTURES["qwen3_moe"]), Sft(), router_weight=0))
    left_out, _ = train_step(without, ROWS, plan, 0, 0, settings)
    assert left_out.loss == pytest.approx(sums.loss, rel=1e-5)
    assert left_out.grad_norm != pytest.approx(sums.grad_norm, rel=1e-3)
    assert "loss/router" not in left_out.metrics(loss_normalizer=1, seconds=1)


def test_a_router_loss_that_is_not_known_is_refused_by_name():
    model = tiny("llama4_text", num_local_experts=2, intermediate_size_mlp=48, head_dim=8)
    with pytest.raises(ModelError, match=r"llama4_text has a loss that balances .* set train.router_loss=0"):
        PolicyLoss(model, Dft(), router_weight=None)


def test_norms_and_biases_do_not_decay():
    policy = PolicyLoss(tiny("qwen2"), Dft())
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    decayed, kept = ([names[id(p)] for p in group["params"]] for group in parameter_groups(policy, 0.1))
    assert all("norm" in name or name.endswith("bias") for name in kept)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert len(decayed) + len(kept) == len(names)
    assert [group["weight_decay"] for group in parameter_groups(policy, 0.1)] == [0.1, 0.0]


def test_a_step_without_a_target_changes_no_weight():
    engine = PlainEngine(PolicyLoss(tiny("llama"), Sft()))
    one_step(engine, ROWS, Sft())  # AdamW's moments would keep the weights moving in the same direction
    before = {name: tensor.clone() for name, tensor in engine.module.state_dict().items()}
    sums = one_step(engine, [replace(row, response_ids=[]) for row in ROWS], Sft())
    assert (sums.tokens, sums.loss, sums.grad_norm) == (0, 0, 0)
    assert sums.finite
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.module.state_dict().items())
    assert all(state["step"] == 1 for state in engine.optimizer.state.values())
    line = sums.metrics(loss_normalizer=1.0, seconds=1.0)
    assert not any(isinstance(value, float) and math.isnan(value) for value in line.values())


def test_the_row_whose_ratio_is_not_a_number_is_named():
    rows = [*ROWS[:1], replace(ROWS[1], behavior=[-4.0, math.nan]), *ROWS[2:]]
    engine = PlainEngine(PolicyLoss(tiny("llama"), Is()))
    with pytest.raises(TrainingError, match=r"the loss of step 1 is nan; .* look at the row b$"):
        one_step(engine, rows, Is())
    assert one_step(engine, rows, Is(), may_skip=True).skipped


def test_rows_of_which_no_number_is_one_are_all_named():
    model = tiny("llama")
    engine = PlainEngine(PolicyLoss(model, Sft()))
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"look at the rows a, b, c$"):
        one_step(engine, ROWS, Sft())
