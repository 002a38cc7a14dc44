"""Settings of the training; those of its loss are in `offsft.config.objective`."""

from typing import Literal

from pydantic import Field

from offsft.config.cluster import Label
from offsft.config.objective import Dft, Objective
from offsft.strict import Strict


class SourceWeights(Strict):
    self: float = Field(default=1.0, ge=0)
    """Factor on the losses of rows that the policy solved by itself; 0 leaves them out."""
    guided: float = Field(default=1.0, ge=0)
    """The same for rows solved with the expert solution in view."""
    expert: float = Field(default=1.0, ge=0)
    """The same for expert solutions."""


class Lora(Strict):
    rank: int = Field(default=0, ge=0)
    """Rank of the low-rank adapters (arXiv 2106.09685) that are trained instead of all weights; 0 trains all weights."""
    alpha: int = Field(default=16, ge=1)
    """The adapters' output is scaled by this over the rank."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Linear layers that get an adapter: `all-linear` for all but the head, or a list of names."""
    keep_adapter: bool = False
    """Keep the adapter itself in `adapter/` of the run's folder, beside the merged model in `model/`."""


class Train(Strict):
    objective: Objective = Dft()
    """The loss of a token."""
    responses: Literal["kept", "expert"] = "kept"
    """What is learnt: the responses that rewriting kept, or the expert's solution of every problem, as without rewriting."""
    source_weights: SourceWeights = SourceWeights()
    lora: Lora = Lora()
    workers: int = Field(default=1, ge=1)
    """Data-parallel training processes."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """CPU cores that a training process reserves with Ray."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs of a training process; 0 trains on the CPU."""
    placement: Literal["pack", "spread"] = "pack"
    """Training processes on as few nodes as they fit on, or on as many as there are."""
    node_labels: dict[Label, Label] = {}
    """As `engine.node_labels`, for the training processes."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage: what is sharded over the workers (0 nothing, 1 optimizer, 2 and gradients, 3 and weights)."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the rewrites."""
    global_batch: int = Field(default=16, ge=1)
    """Rows in one optimizer step, over all workers."""
    micro_batch_tokens: int = Field(default=2048, ge=16)
    """Tokens, of rows packed together, that a worker computes at once; at least `max_tokens`."""
    max_tokens: int = Field(default=1024, ge=16)
    """Longest prompt and response together, in tokens."""
    long_rows: Literal["cut", "drop", "refuse"] = "cut"
    """What becomes of longer rows: cut on the right, left out, or the training stops before it starts."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay."""
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm; larger gradients are scaled down to it."""
    skip_steps: int = Field(default=0, ge=0)
    """Steps whose loss or gradient is not finite that are left out, each named in `skipped.jsonl`, before training stops; ZeRO-3 cannot leave one out."""
    head_chunk_tokens: int | None = Field(default=None, ge=1)
    """Tokens whose logits exist at once; unset: as many as fit into 128 MiB."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    offload: Literal["none", "optimizer", "optimizer_and_weights"] = "none"
    """What DeepSpeed keeps in the nodes' main memory instead of the GPUs': the optimizer's state needs ZeRO 1 or higher, the weights ZeRO 3."""
    gap_rows: int = Field(default=256, ge=0)
    """Rows, drawn by the seed, whose policy gap is measured before and after training; 0 leaves it out."""
    checkpoint_steps: int = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""
    tensorboard: bool = False
    """Write the metrics of each step as TensorBoard files too, to `tensorboard/` of the run's folder."""
    wandb: str | None = Field(default=None, min_length=1)
    """Project of Weights & Biases that the metrics of each step go to as well; WANDB_API_KEY, WANDB_MODE and the like are read where a training process runs. Unset: none."""
    max_failures: int = Field(default=2, ge=0)
    """How often Ray Train starts the workers again after one has died."""
