"""Turns training settings into a DeepSpeed configuration.

Does not import DeepSpeed, so that it can be read and tested anywhere.
"""

from typing import Any

from offsft.config import TrainConfig


def stage_of(settings: TrainConfig, dtype: str) -> int:
    """The ZeRO stage that DeepSpeed runs: `train.zero_stage`, but at least 1 in bfloat16.

    DeepSpeed sums bfloat16 gradients in float32 only with a ZeRO optimizer. On one worker stages 0 and 1 are the same.
    """
    return max(settings.zero_stage, 1) if dtype == "bfloat16" else settings.zero_stage


def deepspeed_config(settings: TrainConfig, dtype: str) -> dict[str, Any]:
    """The configuration for `deepspeed.initialize`.

    Accumulation is 1 on purpose. The number of micro-batches differs from step to step, so the step itself marks the
    last one. It also divides by the tokens of the whole global batch; DeepSpeed must not divide once more.
    """
    zero: dict[str, Any] = {"stage": stage_of(settings, dtype)}
    if settings.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if settings.offload == "optimizer_and_weights":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.clip,
        "bf16": {"enabled": dtype == "bfloat16"},
        # Otherwise micro-batches are summed in the model's dtype: the more there are, the more of each is rounded away.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        # torch's AdamW, fused where it is offloaded, needs no compiler; DeepSpeed's own CPU optimizer does.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
