"""The arithmetic of memory and time of a recipe, from the model's shape. docs/planning.md explains each formula.

Bytes, tokens, seconds; memory is that of one GPU. No framework, no cluster, no model needed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsft.config import Engine, Lora, Plan, Recipe, Train
from offsft.errors import ConfigError

GIB = 2**30
_ENGINE_OVERHEAD = 3 * GIB
"""Activations, CUDA graphs and context of an engine beside weights and cache; an assumption."""
_TRAIN_OVERHEAD = 3 * GIB
"""CUDA context, allocator and communication buffers of a training process; an assumption."""
_HEAD_BYTES = 4 * 128 * 2**20
"""The fused head's chunk of logits, and its copies in the backward pass."""
_LIVE_PARAMETERS = 10**9
"""Parameters that ZeRO-3 holds gathered at once: DeepSpeed's default `stage3_max_live_parameters`."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory in bytes, dense bfloat16 operations and bytes a second, as the maker states them (SXM)."""

    memory: float
    flops: float
    bandwidth: float


GPUS = {
    "h200": Gpu(141e9, 989e12, 4.8e12),
    "h100": Gpu(80e9, 989e12, 3.35e12),
    "a100": Gpu(80e9, 312e12, 2.04e12),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with gated MLPs and grouped-query attention, as Llama, Qwen and Mistral are."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    attention_bias: bool = False

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the linear layers of one block."""
        d, q, kv, f = self.hidden, self.heads * self.head_size, self.kv_heads * self.head_size, self.intermediate
        return [(d, q), (d, kv), (d, kv), (q, d), (d, f), (d, f), (f, d)]

    @property
    def parameters(self) -> int:
        bias = (self.heads + 2 * self.kv_heads) * self.head_size if self.attention_bias else 0
        block = sum(a * b for a, b in self.linears) + bias + 2 * self.hidden
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * block + self.hidden

    def cache_bytes(self, width: int = 2) -> int:
        """Of one token in the key-value cache."""
        return 2 * self.layers * self.kv_heads * self.head_size * width

    def activation_bytes(self, tokens: int, *, checkpointing: bool, width: int = 2) -> int:
        """Kept for the backward pass: each layer's input, and what is computed inside of all layers, or of one."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        inside = width * tokens * (3 * self.hidden + 2 * q + 2 * kv + 4 * self.intermediate)
        return self.layers * width * tokens * self.hidden + inside * (1 if checkpointing else self.layers)

    def adapter_parameters(self, rank: int) -> int:
        return self.layers * rank * sum(a + b for a, b in self.linears)


STATED = {
    "Qwen/Qwen2.5-Math-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, attention_bias=True),
    "meta-llama/Llama-3.1-8B-Instruct": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": Shape(8192, 80, 64, 8, 128, 28672, 128256),
}
"""Shapes from the config.json of models that need not be on this machine."""


def shape_of(model: str) -> Shape:
    """From config.json of a model's folder, or one of `STATED`.

    Raises:
        ConfigError: there is no such folder, or its config.json lacks what is needed.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        if model in STATED:
            return STATED[model]
        raise ConfigError(
            f"model.path={model} is no folder with a config.json, and none of {', '.join(STATED)}; give the model's folder"
        )
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    try:
        heads = config["num_attention_heads"]
        return Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=bool(config.get("attention_bias", config.get("model_type") == "qwen2")),
        )
    except KeyError as error:
        raise ConfigError(f"{path} has no {error}; only decoders of attention and gated MLPs can be planned") from None


def expected_samples(waves: list[int], accept: float) -> tuple[float, float]:
    """Samples that a stage of waves draws for a problem, and the chance that none is right.

    `accept` is the mean over problems. Problems differ: their chances are taken as Beta distributed with
    a + b = 1, so that many are nearly always solved and many hardly ever.
    """
    drawn, left, before = 0.0, 1.0, 0
    for wave in waves:
        drawn += left * wave
        for number in range(before, before + wave):
            left *= (1 - accept + number) / (1 + number)
        before += wave
    return drawn, left


@dataclass(frozen=True, slots=True)
class Sampling:
    """An engine: memory of each of its GPUs in bytes, and what it does."""

    weights: float
    cache: float
    sequences: int
    """That decode at once: as many as the setting says and the cache holds."""
    tokens_per_s: float


def sampling(shape: Shape, gpu: Gpu, engine: Engine, plan: Plan, context_tokens: int, width: int) -> Sampling:
    """Decoding reads the weights once for all sequences and each sequence's cache, a token at a time."""
    spread = max(1, round(engine.gpus))
    weights = shape.parameters * width / spread
    cache = gpu.memory * engine.gpu_memory_share - weights - _ENGINE_OVERHEAD
    longest = shape.cache_bytes(width) / spread * context_tokens
    sequences = min(engine.max_sequences, int(max(0.0, cache) / longest))
    mean_tokens = plan.prompt_tokens + plan.response_tokens / 2
    read = weights + sequences * mean_tokens * shape.cache_bytes(width) / spread
    step_s = max(
        read / (gpu.bandwidth * plan.bandwidth_share),
        2 * shape.parameters * sequences / (spread * gpu.flops * plan.compute_share),
    )
    return Sampling(weights, max(0.0, cache), sequences, sequences / step_s)


@dataclass(frozen=True, slots=True)
class Training:
    """Memory of one training process in bytes: `parts` on its GPU, `host` in the node's main memory."""

    parts: dict[str, float]
    host: float

    @property
    def gpu(self) -> float:
        return sum(self.parts.values())


def training(shape: Shape, settings: Train, dtype: str) -> Training:
    """ZeRO shards optimizer, gradients and weights from stage 1, 2 and 3 on (arXiv 1910.02054, section 3)."""
    n, stage = settings.workers, settings.zero_stage
    width = 2 if dtype == "bfloat16" else 4
    trained = _trained(shape, settings.lora)
    # Adam's two moments, and with bfloat16 a float32 master copy and the gradient in float32 at the step.
    optimizer = trained * (8 + (8 if width == 2 else 0)) / (n if stage >= 1 else 1)
    weights = shape.parameters * width / (n if stage == 3 else 1)
    gathered = min(shape.parameters, _LIVE_PARAMETERS) * width if stage == 3 else 0.0
    parts = {
        "weights": weights,
        "gathered weights": gathered,
        "gradients": trained * width / (n if stage >= 2 else 1),
        "optimizer": optimizer,
        "activations": shape.activation_bytes(
            settings.micro_batch_tokens, checkpointing=settings.gradient_checkpointing, width=width
        ),
        "head": float(_HEAD_BYTES),
        "anchor": float(shape.parameters * width) if settings.objective.needs_anchor else 0.0,
        "overhead": float(_TRAIN_OVERHEAD),
    }
    host = 0.0
    moved = {"none": [], "optimizer": ["optimizer"], "optimizer_and_weights": ["optimizer", "weights"]}
    for part in moved[settings.offload]:
        host += parts[part]
        parts[part] = 0.0
    return Training({name: size for name, size in parts.items() if size}, host)


def _trained(shape: Shape, lora: Lora) -> int:
    return shape.adapter_parameters(lora.rank) if lora.rank else shape.parameters


def train_seconds(shape: Shape, gpu: Gpu, settings: Train, plan: Plan, rows: int) -> float:
    """6 operations a parameter and token, 8 with recomputation (arXiv 2001.08361, 2205.05198), and an offloaded
    optimizer's traffic at each step: gradient down, weights up."""
    length = min(plan.prompt_tokens + plan.response_tokens, settings.max_tokens)
    operations = (8 if settings.gradient_checkpointing else 6) * shape.parameters * rows * length * settings.epochs
    compute_s = operations / (settings.workers * gpu.flops * plan.compute_share)
    if settings.offload == "none":
        return compute_s
    steps = -(-rows // settings.global_batch) * settings.epochs
    moved = 4 * _trained(shape, settings.lora) / settings.workers
    return compute_s + steps * moved / (plan.host_gb_per_s * 1e9)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Everything that `jobs.plan` prints. Times in seconds; `misfits` says what does not fit, and what to do."""

    shape: Shape
    gpu: Gpu
    sampling: Sampling
    training: Training
    problems: int
    samples: float
    sampled_tokens: float
    shares: tuple[float, float, float]
    """Of problems kept as self, guided, expert."""
    rewrite_s: float
    train_s: float
    evaluate_s: float
    misfits: list[str]


def estimate(recipe: Recipe) -> Estimate:
    """The plan of a recipe on the cluster of its section `plan`.

    Raises:
        ConfigError: the model's shape, or the number of problems, is not known, or the recipe uses no GPUs.
    """
    plan, engine, train = recipe.plan, recipe.engine, recipe.train
    if not engine.gpus or not train.gpus_per_worker:
        raise ConfigError("jobs.plan is about GPUs; set engine.gpus and train.gpus_per_worker to 1 or more")
    shape, gpu = shape_of(recipe.model.path), GPUS[plan.gpu]
    width = 2 if recipe.model.dtype == "bfloat16" else 4
    problems = _problems(recipe)
    one = sampling(shape, gpu, engine, plan, recipe.model.context_tokens, width)
    own, not_own = expected_samples(recipe.rewrite.self_waves, plan.accept_self)
    guided, not_guided = expected_samples(recipe.rewrite.guided_waves, plan.accept_guided)
    samples = problems * (own + not_own * guided)
    tokens = samples * plan.response_tokens
    memory = training(shape, train, recipe.model.dtype)
    rate = one.tokens_per_s * engine.actors
    # The expert's solution is scored once for each problem, and a guided response once more: a prefill.
    scored = problems * (1 + not_own * (1 - not_guided)) * (plan.prompt_tokens + plan.response_tokens)
    score_s = 2 * shape.parameters * scored / (engine.actors * engine.gpus * gpu.flops * plan.compute_share)
    answers = 2 * _held_out(recipe) * recipe.evaluate.samples * plan.response_tokens
    return Estimate(
        shape=shape,
        gpu=gpu,
        sampling=one,
        training=memory,
        problems=problems,
        samples=samples,
        sampled_tokens=tokens,
        shares=(1 - not_own, not_own * (1 - not_guided), not_own * not_guided),
        rewrite_s=tokens / rate + score_s if rate else float("inf"),
        train_s=train_seconds(shape, gpu, train, plan, problems),
        evaluate_s=answers / rate if rate else float("inf"),
        misfits=_misfits(recipe, gpu, one, memory),
    )


def _problems(recipe: Recipe) -> int:
    generated = recipe.data.generated_problems if recipe.data.path == "generated" else None
    problems = recipe.plan.problems or recipe.data.limit or generated
    if problems is None:
        raise ConfigError("how many problems there are is not known; set plan.problems")
    return problems


def _held_out(recipe: Recipe) -> int:
    """Problems of the evaluation, over all suites."""
    settings = recipe.evaluate
    generated = settings.generated_problems if settings.path == "generated" and not settings.suites else None
    limited = settings.limit and settings.limit * max(1, len(settings.suites))
    problems = recipe.plan.held_out_problems or limited or generated
    if problems is None:
        raise ConfigError("how many problems the evaluation has is not known; set plan.held_out_problems")
    return problems


def _misfits(recipe: Recipe, gpu: Gpu, one: Sampling, memory: Training) -> list[str]:
    plan, engine, train = recipe.plan, recipe.engine, recipe.train
    host = memory.host * min(train.workers, plan.gpus_per_node)
    found = [
        (
            one.sequences == 0,
            f"an engine has no room for one sequence of model.context_tokens={recipe.model.context_tokens}: its weights take"
            f" {one.weights / GIB:.0f} GiB of each GPU's {gpu.memory / GIB:.0f}; raise engine.gpus, or lower the context",
        ),
        (
            memory.gpu > gpu.memory,
            f"training needs {memory.gpu / GIB:.0f} GiB of each GPU's {gpu.memory / GIB:.0f}; the largest part is"
            f" {max(memory.parts, key=lambda part: memory.parts[part])}: raise train.zero_stage, train.workers or train.offload,"
            " set train.gradient_checkpointing=true, or lower train.micro_batch_tokens",
        ),
        (
            host > plan.node_memory_gib * GIB,
            f"what training offloads takes {host / GIB:.0f} GiB of a node's plan.node_memory_gib={plan.node_memory_gib:g};"
            " raise train.workers, or train.offload=optimizer",
        ),
        (
            engine.actors * engine.gpus > plan.gpus,
            f"engine.actors={engine.actors} of engine.gpus={engine.gpus:g} are more than plan.gpus={plan.gpus}",
        ),
        (
            train.workers * train.gpus_per_worker > plan.gpus,
            f"train.workers={train.workers} of train.gpus_per_worker={train.gpus_per_worker:g} are more than"
            f" plan.gpus={plan.gpus}",
        ),
    ]
    return [message for wrong, message in found if wrong]
