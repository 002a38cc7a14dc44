"""Training settings as DeepSpeed's configuration."""

import json

import pytest

from offsft.config import Train
from offsft.train.zero import deepspeed_config


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_settings_reach_deepspeed(stage):
    config = deepspeed_config(Train(zero_stage=stage, clip=0.25), "bfloat16")
    assert config["zero_optimization"]["stage"] == stage
    assert config["gradient_clipping"] == 0.25
    assert config["bf16"] == {"enabled": True}
    assert deepspeed_config(Train(), "float32")["bf16"] == {"enabled": False}


def test_deepspeed_neither_divides_nor_compiles_an_optimizer():
    config = deepspeed_config(Train(), "float32")
    assert config["gradient_accumulation_steps"] == 1
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert json.loads(json.dumps(config)) == config
