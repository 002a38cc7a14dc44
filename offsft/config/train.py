"""Settings of training; those of its loss are in `offsft.config.objective`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from offsft.config.base import FREE, Strict, refuse
from offsft.config.cluster import Label
from offsft.config.objective import Dft, Objective

SourceWeights = dict[str, Annotated[float, Field(ge=0)]]


class Lora(Strict):
    rank: int = Field(default=0, ge=0)
    """Rank of the low-rank adapters (arXiv 2106.09685) that are trained instead of all weights; 0 trains all weights."""
    alpha: int = Field(default=16, ge=1)
    """The adapters' output is scaled by alpha / rank."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Linear layers that get an adapter: `all-linear` for all but the head, or a list of names."""
    keep_adapter: bool = False
    """Keep the adapter itself in `adapter/` of the run's folder, in addition to the merged model in `model/`."""

    @model_validator(mode="after")
    def _possible(self) -> "Lora":
        no_adapter = "train.lora.keep_adapter=true has no adapter to keep; set train.lora.rank, for example to 16"
        refuse([(self.keep_adapter and self.rank == 0, no_adapter)])
        return self


class TrainConfig(Strict):
    objective: Objective = Dft()
    """The training objective: the loss per token."""
    responses: Literal["kept", "expert"] = "kept"
    """Training targets: the responses that rewriting kept, or the expert's solution of every problem, as without rewriting."""
    source_weights: SourceWeights = {}
    """Loss weight of each source's rows, by the name of the stage that gave them; 0 leaves them out, unnamed ones count 1."""
    lora: Lora = Lora()
    workers: int = Field(default=1, ge=1)
    """Data-parallel training processes."""
    cpus_per_worker: Annotated[float | None, FREE] = Field(default=None, gt=0)
    """CPU cores that a training process reserves with Ray, and its threads where it trains on them; unset: it reserves 1, and on the CPU uses all cores of its node, shared evenly with the other training processes there."""
    gpus_per_worker: Annotated[float, FREE] = Field(default=0, ge=0)
    """GPUs per training process; 0 trains on the CPU."""
    placement: Annotated[Literal["pack", "spread"], FREE] = "pack"
    """Place training processes on as few nodes as possible (`pack`), or on as many as possible (`spread`)."""
    node_labels: Annotated[dict[Label, Label], FREE] = {}
    """As `engine.node_labels`, for the training processes."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """DeepSpeed ZeRO stage: what is sharded over the workers (0 nothing, 1 optimizer state, 2 also gradients, 3 also weights)."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the rewrites."""
    global_batch: int = Field(default=16, ge=1)
    """Rows per optimizer step, over all workers."""
    micro_batch_tokens: int = Field(default=2048, ge=16)
    """Tokens of packed rows per micro-batch of a worker; at least `max_tokens`."""
    max_tokens: int = Field(default=1024, ge=16)
    """Longest prompt and response together, in tokens."""
    long_rows: Literal["cut", "drop", "refuse"] = "drop"
    """Handling of longer rows: `drop` leaves them out, `cut` cuts them on the right (which teaches the model not to end), `refuse` stops before training starts."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning-rate schedule after the warm-up."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps over which the learning rate rises from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay, for matrices; norms and biases do not decay."""
    dropout: bool = False
    """Train with the dropout of the model's configuration; off, the weights in training are the policy that sampled."""
    router_loss: float | None = Field(default=None, ge=0)
    """Weight of a mixture-of-experts model's load-balancing loss; unset: the model's own coefficient, 0: none."""
    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm; larger gradients are scaled down to it."""
    skip_steps: int = Field(default=0, ge=0)
    """Steps with a non-finite loss or gradient that are skipped, each named in `skipped.jsonl`, before training stops; ZeRO-3 cannot skip any."""
    head_chunk_tokens: Annotated[int | None, FREE] = Field(default=None, ge=1)
    """Tokens whose logits exist at once; unset: as many as fit into 128 MiB, on a GPU 512 MiB."""
    head_products: Literal["auto", "float32", "split"] = "auto"
    """Matrix products of a head in 16-bit numbers: in float32, or `split` into products of such numbers summed in float32: log-probs the same but for the order of sums, gradients to 2^-17 of each derivative. `auto` splits on GPUs, where it is four times as fast."""
    gradient_checkpointing: Annotated[bool, FREE] = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    offload: Annotated[Literal["none", "optimizer", "optimizer_and_weights"], FREE] = "none"
    """State that DeepSpeed keeps in the nodes' main memory instead of the GPUs': the optimizer's state needs ZeRO 1 or higher, the weights ZeRO 3."""
    gap_rows: int = Field(default=256, ge=0)
    """Rows, drawn by the seed, whose policy gap is measured before and after training; 0 leaves it out."""
    gap_from: Literal["all", "held_out"] = "all"
    """Rows that `gap_rows` draws from: all, or those of the `held_out_rows` problems alone, which are not trained on."""
    held_out_rows: int = Field(default=0, ge=0)
    """Problems whose rows are not trained on, so that their negative log-likelihood can be followed; the same problems in every run on the same data, by a hash of their ids. 0 holds none out."""
    held_out_every: int = Field(default=10, ge=1)
    """Optimizer steps between two measurements of the held-out rows; they are also measured before the first step and after the last."""
    checkpoint_steps: Annotated[int, FREE] = Field(default=50, ge=1)
    """Optimizer steps between checkpoints."""
    keep_checkpoints: Annotated[int, FREE] = Field(default=2, ge=1)
    """Number of checkpoints to keep."""
    tensorboard: Annotated[bool, FREE] = False
    """Also write the metrics of each step as TensorBoard files, to `tensorboard/` of the run's folder."""
    wandb: Annotated[str | None, FREE] = Field(default=None, min_length=1)
    """Weights & Biases project to which the metrics of each step are also sent; WANDB_API_KEY, WANDB_MODE and the like are read where a training process runs. Unset: none."""
    max_failures: Annotated[int, FREE] = Field(default=2, ge=0)
    """How often Ray Train restarts the workers after one has died."""
    stall_s: Annotated[float, FREE] = Field(default=3600, gt=0)
    """Seconds without a step or another sign of life of a worker after which all workers write where they stand to their logs and are restarted, which counts as a failure; it must exceed the longest loading of the weights."""

    @property
    def reserved_cpus(self) -> float:
        """CPU cores that each training process reserves with Ray."""
        return 1.0 if self.cpus_per_worker is None else self.cpus_per_worker

    @property
    def splits_head(self) -> bool:
        """Whether the products of a head in 16-bit numbers are split."""
        return self.head_products == "split" or (self.head_products == "auto" and self.gpus_per_worker > 0)

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        refuse([*self._wrong_batches(), *self._wrong_with_deepspeed()])
        return self

    def _wrong_batches(self) -> list[tuple[bool, str]]:
        return [
            (
                self.micro_batch_tokens < self.max_tokens,
                f"train.micro_batch_tokens={self.micro_batch_tokens} cannot hold a row of"
                f" train.max_tokens={self.max_tokens}; raise it to at least that",
            ),
            (
                self.global_batch < self.workers,
                f"train.global_batch={self.global_batch} gives some of train.workers={self.workers}"
                f" nothing to do; raise it to at least {self.workers}",
            ),
            (
                self.gap_from == "held_out" and not self.held_out_rows,
                "train.gap_from=held_out has no rows to draw from; set train.held_out_rows, for example to 64",
            ),
        ]

    def _wrong_with_deepspeed(self) -> list[tuple[bool, str]]:
        least_stage = {"none": 0, "optimizer": 1, "optimizer_and_weights": 3}[self.offload]
        return [
            (
                self.zero_stage < least_stage,
                f"train.offload={self.offload} needs train.zero_stage={least_stage} or higher, not {self.zero_stage}",
            ),
            (
                self.offload != "none" and self.gpus_per_worker == 0,
                f"train.offload={self.offload} moves memory away from GPUs, and train.gpus_per_worker=0 uses none;"
                " set train.offload=none",
            ),
            (
                self.skip_steps > 0 and self.zero_stage == 3,
                f"train.skip_steps={self.skip_steps} does not work with train.zero_stage=3, in which DeepSpeed has"
                " updated the weights before it knows the gradient; set it to 0, or a lower stage",
            ),
        ]
