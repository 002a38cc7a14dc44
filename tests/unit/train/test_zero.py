"""Training settings as DeepSpeed's configuration."""

import json

import pytest

from offsft.config import TrainConfig
from offsft.train.zero import deepspeed_config


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_settings_reach_deepspeed(stage):
    config = deepspeed_config(TrainConfig(zero_stage=stage, clip=0.25), "float32")
    assert config["zero_optimization"]["stage"] == stage
    assert config["gradient_clipping"] == 0.25
    assert config["bf16"] == {"enabled": False}
    assert deepspeed_config(TrainConfig(), "bfloat16")["bf16"] == {"enabled": True}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_summed_and_reduced_in_float32(dtype):
    config = deepspeed_config(TrainConfig(), dtype)
    assert config["data_types"] == {"grad_accum_dtype": "fp32"}
    assert config["communication_data_type"] == "fp32"


def test_bfloat16_without_sharding_runs_stage_1_which_sums_in_float32():
    assert deepspeed_config(TrainConfig(zero_stage=0), "bfloat16")["zero_optimization"]["stage"] == 1
    assert deepspeed_config(TrainConfig(zero_stage=0), "float32")["zero_optimization"]["stage"] == 0


def test_deepspeed_neither_divides_nor_compiles_an_optimizer():
    config = deepspeed_config(TrainConfig(), "float32")
    assert config["gradient_accumulation_steps"] == 1
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert json.loads(json.dumps(config)) == config
