"""Builds the DeepSpeed engine around the policy: trained parameters, weight decay, checks before the first step."""

import importlib
import os
from typing import Any

import torch

from offsft.config import TrainConfig
from offsft.train.extensions import prepare_extensions
from offsft.train.lora import add_adapters
from offsft.train.policy import PolicyLoss
from offsft.train.zero import deepspeed_config


def start_engine(
    model: Any, settings: TrainConfig, dtype: str, *, anchor: Any | None = None, packed: bool = True
) -> Any:
    """A DeepSpeed engine around the policy and its loss; `anchor` is the policy before training, for ASFT.

    Without `packed`, each micro-batch must have one row at most.
    """
    prepare_deepspeed(settings)
    import deepspeed

    if settings.lora.rank:
        add_adapters(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        if settings.lora.rank:
            model.enable_input_require_grads()
    policy = PolicyLoss(
        model,
        settings.objective,
        chunk_tokens=settings.head_chunk_tokens,
        split=settings.splits_head,
        anchor=anchor,
        dropout=settings.dropout,
        router_weight=settings.router_loss,
        packed=packed,
        check=False,
    )
    # Each step sets its own rate. In bfloat16 without ZeRO, DeepSpeed allocates the optimizer's state by a step on zero
    # gradients. At a rate of 0 that decays no weight; below, it is kept from counting as Adam's first step.
    optimizer = torch.optim.AdamW(
        parameter_groups(policy, settings.weight_decay),
        lr=0.0,
        betas=settings.betas,
        # Offloaded, the optimizer steps on the CPU: torch's fused step needs no compiler and is as fast as DeepSpeed's.
        fused=settings.offload != "none" or None,
    )
    engine, *_ = deepspeed.initialize(
        model=policy, optimizer=optimizer, config=deepspeed_config(settings, dtype), dist_init_required=False
    )
    for state in optimizer.state.values():
        state["step"].zero_()
    _name_stage(engine.optimizer)
    # Only now: sharded weights have data only between DeepSpeed's hooks.
    policy.check()
    if anchor is not None:
        anchor.requires_grad_(False).to(engine.device)
    engine.train()
    return engine


def prepare_deepspeed(settings: TrainConfig) -> None:
    """Set DeepSpeed's device and the folder of its compiled extensions; call before its first import."""
    if settings.gpus_per_worker == 0:
        os.environ["DS_ACCELERATOR"] = "cpu"
    prepare_extensions()
    if settings.gpus_per_worker == 0:
        _compile_nothing()


def parameter_groups(policy: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups of trained parameters: matrices decay, biases and norm weights do not."""
    trained = [(name, parameter) for name, parameter in policy.named_parameters() if parameter.requires_grad]
    decays = [len(getattr(p, "ds_shape", p.shape)) > 1 and not name.endswith("bias") for name, p in trained]
    groups = [
        {
            "params": [p for (_, p), decayed in zip(trained, decays, strict=True) if decayed is wanted],
            "weight_decay": rate,
        }
        for wanted, rate in ((True, weight_decay), (False, 0.0))
    ]
    return [group for group in groups if group["params"]]


def _name_stage(optimizer: Any) -> None:
    """Have DeepSpeed's bfloat16 optimizer name its ZeRO stage in checkpoints, where `zero_to_fp32` looks for it."""
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

    if isinstance(optimizer, BF16_Optimizer):
        state_dict = optimizer.state_dict
        optimizer.state_dict = lambda: {**state_dict(), "zero_stage": 1}


def _compile_nothing() -> None:
    """Keep DeepSpeed from compiling its shared-memory kernel: that takes a minute, and only its inference uses it.

    The module is imported by its full name. The attribute `deepspeed.comm.torch` is the package `torch` itself, since
    deepspeed.comm star-imports a module that imports torch.
    """
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
