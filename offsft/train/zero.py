"""Training settings to a DeepSpeed configuration. Imports no DeepSpeed, so that it can be read and tested anywhere."""

from typing import Any

from offsft.config import Train


def deepspeed_config(settings: Train, dtype: str) -> dict[str, Any]:
    """The configuration of `deepspeed.initialize`.

    Accumulation is 1 on purpose: the step decides itself which micro-batch is the last, since their number differs
    from step to step, and divides by the tokens of the whole global batch. DeepSpeed must not divide once more.
    """
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if settings.offload == "optimizer_and_weights":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.clip,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": zero,
        # torch's AdamW is exact on every device; DeepSpeed's CPU build of it would be compiled first.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
