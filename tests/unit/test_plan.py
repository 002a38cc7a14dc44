"""The arithmetic of a plan equals cases worked by hand and the figures of the models' makers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from offsft.config import EngineConfig, PlanConfig, TrainConfig
from offsft.config.loading import load
from offsft.errors import ConfigError
from offsft.plan import GPUS, STATED, Shape, estimate, expected_samples, sampling, shape_of, train_seconds, training

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
REAL = ("qwen2.5-math-7b", "llama-3.1-8b", "llama-3.1-70b")
SMALL = Shape(hidden=4, layers=2, heads=2, kv_heads=1, head_size=2, intermediate=8, vocabulary=10)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-Math-7B", 7_615_616_512),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-30B-A3B", 30_532_122_624),
        ("google/gemma-3-1b-it", 999_885_952),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496),
    ],
)
def test_parameters_are_those_that_the_makers_publish(name, parameters):
    assert STATED[name].parameters == parameters


def test_a_small_shape_by_hand():
    # A block: q 16, k 8, v 8, o 16, three of 32 in the MLP, two norms of 4. Two embeddings of 40, a last norm of 4.
    assert SMALL.parameters == 2 * (16 + 8 + 8 + 16 + 96 + 8) + 80 + 4
    assert SMALL.cache_bytes() == 2 * 2 * 1 * 2 * 2
    # Rank 3: q (4+4), k and v (4+2), o (4+4), and three times 12.
    assert SMALL.adapter_parameters(3) == 2 * 3 * (8 + 6 + 6 + 8 + 36)
    # Inputs of 2 layers, and inside one layer: 3*4 + 2*4 + 2*2 + 4*8 numbers per token.
    assert SMALL.activation_bytes(5, checkpointing=True) == 2 * 2 * 5 * 4 + 2 * 5 * 56
    assert SMALL.activation_bytes(5, checkpointing=False) == 2 * 2 * 5 * 4 + 2 * 2 * 5 * 56


def test_a_shape_is_read_from_config_json(tmp_path):
    config = {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert shape_of(str(tmp_path)) == STATED["Qwen/Qwen2.5-Math-7B"]


@pytest.mark.parametrize(("stage", "weights", "gradients", "optimizer"), [(0, 2, 4, 4), (1, 2, 4, 4), (2, 2, 1, 4), (3, 0.5, 1, 4)])  # fmt: skip
def test_zero_shards_over_four_workers(stage, weights, gradients, optimizer):
    p = SMALL.parameters
    parts = training(SMALL, TrainConfig(workers=4, zero_stage=stage), "bfloat16").parts
    assert parts["weights"] == weights * p
    assert parts["gradients"] == gradients * p
    assert parts["optimizer"] == optimizer * p
    assert parts.get("gathered weights", 0) == (2 * p if stage == 3 else 0)


def test_offload_moves_and_adapters_shrink():
    p = SMALL.parameters
    settings = TrainConfig(workers=2, zero_stage=3, gpus_per_worker=1, offload="optimizer_and_weights")
    moved = training(SMALL, settings, "bfloat16")
    assert moved.host == 8 * p + 1 * p
    assert not {"weights", "optimizer"} & moved.parts.keys()
    lora = training(SMALL, TrainConfig.model_validate({"zero_stage": 0, "lora": {"rank": 3}}), "float32").parts
    assert lora["weights"] == 4 * p
    assert lora["optimizer"] == 8 * SMALL.adapter_parameters(3)


def test_the_heads_gradient_in_float32_is_counted_where_the_head_is_trained():
    qwen = STATED["Qwen/Qwen2.5-Math-7B"]
    chunks = 4 * 512 * 2**20
    whole = training(qwen, TrainConfig(workers=8), "bfloat16").parts["head"]
    assert whole - chunks == 152_064 * 3584 * (4 + 2)
    adapters = TrainConfig.model_validate({"workers": 8, "lora": {"rank": 8}})
    assert training(qwen, adapters, "bfloat16").parts["head"] == chunks


def test_the_heads_products_are_split_on_gpus_unless_the_recipe_says_otherwise():
    assert [TrainConfig(gpus_per_worker=gpus).splits_head for gpus in (0, 1)] == [False, True]
    assert not TrainConfig(gpus_per_worker=1, head_products="float32").splits_head


def test_each_worker_loads_the_whole_model_below_zero_3():
    llama = STATED["meta-llama/Llama-3.1-70B-Instruct"]
    assert training(llama, TrainConfig(workers=8, zero_stage=2), "bfloat16").loading == 2 * llama.parameters
    assert training(llama, TrainConfig(workers=8, zero_stage=3), "bfloat16").loading == 2 * llama.parameters / 8


def test_scores_are_in_memory_where_no_kernel_caps_them():
    gemma = replace(SMALL, scores_written_out=True)
    settings = TrainConfig(max_tokens=100, micro_batch_tokens=100, gradient_checkpointing=True)
    assert training(gemma, settings, "bfloat16").parts["attention scores"] == 2 * 4 * 2 * 100**2
    assert "attention scores" not in training(SMALL, settings, "bfloat16").parts


def test_a_mixture_holds_all_experts_and_computes_with_the_chosen():
    mixture = replace(SMALL, experts=4, experts_chosen=2)
    assert mixture.parameters == SMALL.parameters + 2 * (3 * 96 + 4 * 4)
    assert mixture.active_parameters == SMALL.parameters + 2 * (96 + 4 * 4)


def test_samples_of_waves_by_hand():
    # Beta(1/2, 1/2): all of 1, 2, 3 wrong with 1/2, 3/8, 5/16.
    drawn, left = expected_samples([1, 2], 0.5)
    assert drawn == pytest.approx(1 + 2 / 2)
    assert left == pytest.approx(5 / 16)
    assert expected_samples([1, 1, 2, 4], 0) == (8, 1)
    assert expected_samples([2, 6], 1) == (2, 0)
    assert expected_samples([], 0.5) == (0, 1)


def test_an_engine_decodes_as_fast_as_it_reads():
    shape, gpu = STATED["meta-llama/Llama-3.1-8B-Instruct"], GPUS["h100"]
    plan = PlanConfig(prompt_tokens=100, response_tokens=200, bandwidth_share=0.5)
    one = sampling(shape, gpu, EngineConfig(gpus=1, max_sequences=4), plan, 1024, 2)
    read = 2 * 8_030_261_248 + 4 * 200 * 131_072  # weights, and four caches of 200 tokens at 128 KiB each
    assert shape.cache_bytes() == 131_072
    assert one.tokens_per_s == pytest.approx(4 * 0.5 * 3.35e12 / read)
    spread = sampling(shape, gpu, EngineConfig(gpus=2, tensor_parallel=2, max_sequences=4), plan, 1024, 2)
    assert spread.tokens_per_s == pytest.approx(2 * one.tokens_per_s)
    assert spread.weights == one.weights / 2


def test_training_time_by_hand():
    plan = PlanConfig(prompt_tokens=100, response_tokens=100, compute_share=0.5)
    settings = TrainConfig(workers=2, epochs=3, max_tokens=1024)
    tokens = 3 * 10 * 200
    expected = 6 * SMALL.parameters * tokens / (2 * 0.5 * 989e12)
    assert train_seconds(SMALL, GPUS["h100"], settings, plan, 10) == pytest.approx(expected)


@pytest.mark.parametrize("name", REAL)
def test_the_recipes_for_real_sizes_fit_and_train_as_the_paper_did(name):
    recipe = load(RECIPES / f"{name}.yaml", [])
    found = estimate(recipe)
    assert found.misfits == []
    assert sum(found.shares.values()) == pytest.approx(1)
    assert 0 < found.rewrite_s < 48 * 3600
    assert 0 < found.train_s < 48 * 3600
    train, judged = recipe.train, recipe.evaluate
    assert (train.global_batch, train.max_tokens, train.epochs, train.long_rows) == (256, 2048, 1, "cut")
    assert (train.schedule, train.warmup, train.betas, train.weight_decay, train.clip) == ("cosine", 0.1, (0.9, 0.95), 0.01, 1)  # fmt: skip
    assert (judged.samples, judged.temperature, judged.top_p) == (16, 1, 1)
    assert recipe.data.limit == 50_000
    if "70b" not in name:
        assert train.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.zero_stage=0", "train.workers=2"], "training needs .* largest part is optimizer"),
        (["model.path=meta-llama/Llama-3.1-70B-Instruct"], "no room for one sequence"),
        (["plan.node_memory_gib=64"], "while loading, the workers of a node hold 113 GiB .* set that"),
        (["engine.actors=9"], "more than plan.gpus=8"),
        (["train.workers=16"], "train.workers=16 .* more than"),
        (["train.offload=optimizer", "plan.node_memory_gib=64"], "of a node's plan.node_memory_gib=64"),
    ],
)
def test_what_does_not_fit_is_said(overrides, message):
    recipe = load(RECIPES / "qwen2.5-math-7b.yaml", overrides)
    found = " ".join(estimate(recipe).misfits)
    assert re.search(message, found), found


def test_a_shape_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="give the model's folder"):
        shape_of("nobody/nothing")
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4, "num_attention_heads": 2}))
    with pytest.raises(ConfigError, match="can be planned"):
        shape_of(str(tmp_path))
