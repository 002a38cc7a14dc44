"""Training: the memory of a process, on its GPU and in the node's main memory, and the time."""

from dataclasses import dataclass

from offsft.config import Lora, PlanConfig, TrainConfig
from offsft.plan.hardware import GIB, Gpu
from offsft.plan.shape import Shape

_OVERHEAD = 3 * GIB
"""CUDA context, allocator and communication buffers of a training process; an assumption."""
_CHUNK_BYTES = 4 * 512 * 2**20
"""The fused head's chunk of logits and its copies in the backward pass."""
_LIVE_PARAMETERS = 10**9
"""Parameters that ZeRO-3 holds gathered at once: DeepSpeed's default `stage3_max_live_parameters`."""


@dataclass(frozen=True, slots=True)
class Training:
    """Memory of one training process in bytes: `parts` on its GPU, `host` in the node's main memory.

    `loading` is what it holds there while it loads the model, before the GPU has it.
    """

    parts: dict[str, float]
    host: float
    loading: float

    @property
    def gpu(self) -> float:
        return sum(self.parts.values())


def training(shape: Shape, settings: TrainConfig, dtype: str) -> Training:
    """Estimate training memory: ZeRO shards optimizer, gradients and weights from stage 1, 2 and 3 on.

    See arXiv 1910.02054, section 3.
    """
    width = 2 if dtype == "bfloat16" else 4
    n = settings.workers
    # In bfloat16 stage 0 runs as stage 1: only a ZeRO optimizer sums gradients in float32.
    stage = max(settings.zero_stage, 1) if width == 2 else settings.zero_stage
    trained = _trained_parameters(shape, settings.lora)
    weights = shape.parameters * width / (n if stage == 3 else 1)
    checkpointing = settings.gradient_checkpointing
    parts = {
        "weights": weights,
        "gathered weights": min(shape.parameters, _LIVE_PARAMETERS) * width if stage == 3 else 0.0,
        "gradients": trained * 4 / (n if stage >= 2 else 1),
        # Adam's two moments, and with bfloat16 a float32 master copy and a float32 gradient at the step.
        "optimizer": trained * (8 + (8 if width == 2 else 0)) / (n if stage >= 1 else 1),
        "activations": shape.activation_bytes(settings.micro_batch_tokens, checkpointing=checkpointing, width=width),
        "attention scores": shape.score_bytes(settings.max_tokens, checkpointing=checkpointing),
        "head": float(_CHUNK_BYTES + _head_gradient(shape, settings.lora, width)),
        "anchor": float(shape.parameters * width) if settings.objective.needs_anchor else 0.0,
        "overhead": float(_OVERHEAD),
    }
    host = 0.0
    moved = {"none": [], "optimizer": ["optimizer"], "optimizer_and_weights": ["optimizer", "weights"]}
    for part in moved[settings.offload]:
        host += parts[part]
        parts[part] = 0.0
    return Training({name: size for name, size in parts.items() if size}, host, loading=weights)


def _head_gradient(shape: Shape, lora: Lora, width: int) -> int:
    """Bytes of the head's gradient: summed in float32 over a micro-batch's chunks, then copied to the weights' type."""
    return 0 if lora.rank else shape.embedding_parameters * (4 + (width if width != 4 else 0))


def _trained_parameters(shape: Shape, lora: Lora) -> int:
    return shape.adapter_parameters(lora.rank) if lora.rank else shape.parameters


def train_seconds(shape: Shape, gpu: Gpu, settings: TrainConfig, plan: PlanConfig, rows: int) -> float:
    """Training time from 6 operations per parameter and token, 8 with recomputation (arXiv 2001.08361, 2205.05198).

    An offloaded optimizer adds traffic at each step: gradient down, weights up.
    """
    length = min(plan.prompt_tokens + plan.response_tokens, settings.max_tokens)
    operations = (
        (8 if settings.gradient_checkpointing else 6) * shape.active_parameters * rows * length * settings.epochs
    )
    compute_s = operations / (settings.workers * gpu.flops * plan.compute_share)
    if settings.offload == "none":
        return compute_s
    steps = -(-rows // settings.global_batch) * settings.epochs
    moved = 4 * _trained_parameters(shape, settings.lora) / settings.workers
    return compute_s + steps * moved / (plan.host_gb_per_s * 1e9)
