"""Every setting of a run: strict, frozen, bounded. A recipe is one `Recipe` in YAML (read by `offsft.recipes`).

The docstring below a field is its documentation (`--help` prints it): what it does and its unit.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from offsft.errors import ConfigError
from offsft.objective_config import Dft, Kl, Objective, Psft, Sft
from offsft.strict import Strict


class Model(Strict):
    path: str = "embedded"
    """The policy: a Hugging Face model folder or name, or `embedded` for the small model that the demo extra carries."""
    revision: str | None = None
    """Revision of a Hugging Face model name (commit, tag or branch)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number type of the weights, in sampling and in training."""
    context_tokens: int = Field(default=1024, ge=64)
    """Longest prompt and response together, in tokens."""


class Prompt(Strict):
    plain: str = "{problem}\n\nSolve the problem step by step, and put the final answer in \\boxed{}."
    """What the user's turn says; `{problem}` stands for the problem. The model is trained on this prompt."""
    guided: str = (
        "{problem}\n\nHere is one way to work it out:\n\n{solution}\n\nNow solve the problem in your own words, step by"
        " step, as if you had found the way yourself. Do not mention that a solution was shown. Put the final answer in"
        " \\boxed{}."
    )
    """The same with the expert's worked solution in view, for `{solution}`."""

    @model_validator(mode="after")
    def _placeholders(self) -> "Prompt":
        for name, text, needed in (
            ("plain", self.plain, ("{problem}",)),
            ("guided", self.guided, ("{problem}", "{solution}")),
        ):
            missing = [mark for mark in needed if mark not in text]
            if missing:
                raise ConfigError(
                    f"prompt.{name} does not contain {' and '.join(missing)}; put it where the text belongs"
                )
        return self


class Fields(Strict):
    problem: str = "problem"
    """Field that holds the problem's text."""
    solution: str = "solution"
    """Field that holds the expert's worked solution."""
    answer: str | None = None
    """Field that holds the reference answer; unset: it is taken from the solution's last `\\boxed{}`."""


class Data(Strict):
    path: str | list[str] = "generated"
    """Problem files (JSONL or Parquet; local or s3://; a file, a folder, or a list), or `generated` for the demo's problems."""
    format: Literal["own", "gsm8k", "math", "numina"] = "own"
    """How rows are read: `own` by `data.fields`, or the layout of a public data set."""
    fields: Fields = Fields()
    """Field names for `format: own`."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many valid problems; unset: all."""
    generated_problems: int = Field(default=96, ge=1)
    """Number of problems that `path: generated` makes."""
    generated_seed: int = 0
    """Seed of the generated problems."""

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Rewrite(Strict):
    self_waves: list[Annotated[int, Field(ge=1)]] = [1, 1, 2, 4]
    """Samples in each wave of the self stage, which ends after the first wave with a correct one; `[8]` is a fixed n, `[]` skips the stage."""
    guided_waves: list[Annotated[int, Field(ge=1)]] = [1, 1, 2]
    """The same for the guided stage."""
    guided_min_share: float = Field(default=0.0, ge=0)
    """Shortest guided response that is kept, as a share of the expert solution's tokens: a shorter one is taken to state the answer it was shown without working it out; 0 keeps all."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest sampled response, in tokens."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature; 1 samples the policy itself."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 samples the policy itself and is fastest."""
    pick: Literal["random", "shortest", "most_likely"] = "random"
    """Which of several correct responses of a wave is kept; `random` is seeded by the problem's id."""
    keep_text: bool = True
    """Keep the text of every attempt, for the report."""
    commit_problems: int = Field(default=16, ge=1)
    """Problems that are written together; a kill costs at most this many times `engine.concurrent_commits` a pool actor."""


class Engine(Strict):
    actors: int = Field(default=1, ge=1)
    """Engines in the pool, one vLLM engine each."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores that an engine's actor reserves with Ray."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of an engine; 0 runs it on the CPU."""
    max_sequences: int = Field(default=64, ge=1)
    """Sequences that an engine decodes at once."""
    kv_cache_gib: float = Field(default=2, gt=0)
    """Size of the key-value cache on a CPU, GiB."""
    gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that an engine takes."""
    concurrent_commits: int = Field(default=8, ge=1)
    """Groups of `rewrite.commit_problems` problems in work at once in an actor."""
    start_tries: int = Field(default=2, ge=1)
    """How often starting an engine is tried before the job gives up."""
    stall_s: float = Field(default=1800, gt=0)
    """An engine that answers nothing for so many seconds while it is asked is taken for dead, and another started."""
    poison_tries: int = Field(default=3, ge=1)
    """A problem goes to quarantine after its engine has died so often while it ran alone."""
    grace_s: float = Field(default=20, ge=0)
    """On SIGTERM or Ctrl-C, seconds in which problems in work may be finished and are written."""


class Verify(Strict):
    kind: Literal["math"] = "math"
    """How answers are compared; `math` is symbolic and numeric equality by math-verify."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Limit for one response, seconds; the process that exceeds it is killed."""
    memory_mb: int = Field(default=1024, ge=256)
    """Limit for one verifying process, MiB."""
    workers: int = Field(default=1, ge=1)
    """Verifying processes beside each engine."""


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
    max_failures: int = Field(default=2, ge=0)
    """How often Ray Train starts the workers again after one has died."""


class Evaluate(Strict):
    path: str | list[str] = "generated"
    """Held-out problems, as `data.path`; `generated` for the demo's held-out problems."""
    format: Literal["own", "gsm8k", "math", "numina"] = "own"
    """As `data.format`."""
    fields: Fields = Fields()
    """Field names for `format: own`."""
    limit: int = Field(default=100, ge=1)
    """Number of held-out problems."""
    samples: int = Field(default=1, ge=1)
    """Samples a problem; accuracy is the mean over all."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 leaves it off."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest response, in tokens."""

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Arm(Strict):
    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    """The arm's name in the table, and of its folders."""
    responses: Literal["kept", "expert"]
    """As `train.responses`: with rewriting or without."""
    objective: Objective
    """As `train.objective`."""
    source_weights: SourceWeights = SourceWeights()
    """As `train.source_weights`; 0 for a source leaves its rows out."""
    learning_rate: float | None = Field(default=None, gt=0)
    """As `train.learning_rate`; unset: the recipe's."""


class Compare(Strict):
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2], min_length=1)
    """Seeds of the order of training; each arm is trained once with each."""
    arms: list[Arm] = Field(
        default=[
            Arm(name="SFT", responses="expert", objective=Sft()),
            Arm(name="DFT", responses="expert", objective=Dft()),
            Arm(name="SFT+KL", responses="expert", objective=Kl()),
            Arm(name="PSFT", responses="expert", objective=Psft()),
            Arm(name="rewriting+SFT", responses="kept", objective=Sft()),
            Arm(name="rewriting+DFT", responses="kept", objective=Dft()),
        ],
        min_length=1,
    )
    """What is compared, each with `name`, `responses`, `objective`, and optionally `source_weights` and `learning_rate`."""
    keep_models: bool = False
    """Keep the model of each arm and seed after it was evaluated."""

    @model_validator(mode="after")
    def _distinct(self) -> "Compare":
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"compare.arms names {', '.join(twice)} more than once; give each arm its own name")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"compare.seeds={self.seeds} holds a seed twice; give each once")
        return self


class GapSide(Strict):
    model: str = "policy"
    """Whose log-probs: `policy` (model.path), `trained` (the run's trained model), or a folder or name as model.path."""
    rewrites: str | None = None
    """Folder of rewrites whose responses are measured, for example `runs/other/rewrites`; unset: the run's own."""
    responses: Literal["kept", "expert"] = "kept"
    """What rewriting kept, or the expert's solutions of the same problems."""


class Gap(Strict):
    first: GapSide = GapSide(responses="expert")
    second: GapSide = GapSide()


class Cluster(Strict):
    address: str | None = None
    """Ray cluster to join, for example `auto`; unset: the one in RAY_ADDRESS, else a local Ray is started."""
    dashboard: bool = False
    """Start the Ray dashboard with a local Ray (http://127.0.0.1:8265)."""


class Recipe(Strict):
    run: str = Field(min_length=1)
    """The run's folder, for example `runs/demo`: everything the run leaves is there."""
    seed: int = Field(default=0, ge=0)
    """Seed of the engines and of the order of training."""
    model: Model = Model()
    prompt: Prompt = Prompt()
    data: Data = Data()
    rewrite: Rewrite = Rewrite()
    engine: Engine = Engine()
    verify: Verify = Verify()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    gap: Gap = Gap()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        train = self.train
        least_stage = {"none": 0, "optimizer": 1, "optimizer_and_weights": 3}[train.offload]
        problems = [
            (
                train.zero_stage < least_stage,
                f"train.offload={train.offload} needs train.zero_stage={least_stage} or higher, not {train.zero_stage}",
            ),
            (
                train.offload != "none" and train.gpus_per_worker == 0,
                f"train.offload={train.offload} moves memory away from GPUs, and train.gpus_per_worker=0 uses none;"
                " set train.offload=none",
            ),
            (
                train.lora.keep_adapter and train.lora.rank == 0,
                "train.lora.keep_adapter=true has no adapter to keep; set train.lora.rank, for example to 16",
            ),
            (
                self.rewrite.max_tokens >= self.model.context_tokens,
                f"rewrite.max_tokens={self.rewrite.max_tokens} leaves no room for a prompt in"
                f" model.context_tokens={self.model.context_tokens}; lower the one or raise the other",
            ),
            (
                self.evaluate.max_tokens >= self.model.context_tokens,
                f"evaluate.max_tokens={self.evaluate.max_tokens} leaves no room for a prompt in"
                f" model.context_tokens={self.model.context_tokens}; lower the one or raise the other",
            ),
            (
                self.train.micro_batch_tokens < self.train.max_tokens,
                f"train.micro_batch_tokens={self.train.micro_batch_tokens} cannot hold a row of"
                f" train.max_tokens={self.train.max_tokens}; raise it to at least that",
            ),
            (
                self.train.global_batch < self.train.workers,
                f"train.global_batch={self.train.global_batch} gives some of train.workers={self.train.workers}"
                f" nothing to do; raise it to at least {self.train.workers}",
            ),
            (
                self.evaluate.temperature == 0 and self.evaluate.samples > 1,
                f"evaluate.samples={self.evaluate.samples} at evaluate.temperature=0 would give the same answer each"
                " time; set evaluate.samples=1 or a temperature above 0",
            ),
            (
                self.evaluate.temperature == 0 and self.evaluate.top_p < 1,
                f"evaluate.top_p={self.evaluate.top_p} has no effect at evaluate.temperature=0 (greedy);"
                " leave it at 1 or set a temperature above 0",
            ),
        ]
        wrong = [message for is_wrong, message in problems if is_wrong]
        if wrong:
            raise ConfigError("; ".join(wrong))
        return self
