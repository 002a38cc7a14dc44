"""Sampling: the memory and speed of an engine, and how many samples the stages of a cascade take."""

from dataclasses import dataclass

from offsft.config import EngineConfig, PlanConfig, Recipe
from offsft.config.stages import WavesConfig
from offsft.plan.hardware import GIB, Gpu
from offsft.plan.shape import Shape
from offsft.records import EXPERT, UNSOLVED

_ENGINE_OVERHEAD = 3 * GIB
"""Activations, CUDA graphs and context of an engine, in addition to weights and cache; an assumption."""
_ACCEPT_SELF, _ACCEPT = 0.4, 0.5
"""Share of samples that a stage keeps if `plan.accept` does not name it; assumptions."""


def expected_samples(waves: list[int], accept: float) -> tuple[float, float]:
    """Expected samples per problem in a stage of waves, and the probability that none is right.

    `accept` is the mean over problems. Problems differ: their probabilities are assumed to be Beta distributed with
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
    """An engine's memory per GPU in bytes, and its throughput."""

    weights: float
    cache: float
    sequences: int
    """Sequences decoded at once: as many as the setting allows and the cache holds."""
    tokens_per_s: float


def sampling(
    shape: Shape, gpu: Gpu, engine: EngineConfig, plan: PlanConfig, context_tokens: int, width: int
) -> Sampling:
    """Estimate an engine: each decoding step, of one token per sequence, reads the weights once and every cache."""
    spread = max(1, round(engine.gpus))
    weights = shape.parameters * width / spread
    cache = gpu.memory * engine.gpu_memory_share - weights - _ENGINE_OVERHEAD
    longest = shape.cache_bytes(width) / spread * context_tokens
    sequences = min(engine.max_sequences, int(max(0.0, cache) / longest))
    mean_tokens = plan.prompt_tokens + plan.response_tokens / 2
    read = weights + sequences * mean_tokens * shape.cache_bytes(width) / spread
    step_s = max(
        read / (gpu.bandwidth * plan.bandwidth_share),
        2 * shape.active_parameters * sequences / (spread * gpu.flops * plan.compute_share),
    )
    return Sampling(weights, max(0.0, cache), sequences, sequences / step_s)


@dataclass(frozen=True, slots=True)
class CascadeCost:
    """The expected cost and results of a recipe's stages per problem."""

    samples: float
    scored: float
    """Kept responses that are scored again, since they were not sampled on the plain prompt."""
    accept: dict[str, float]
    shares: dict[str, float]


def cascade_of(recipe: Recipe) -> CascadeCost:
    """Expected cost of the stages in order: each gets the problems that those before it have not solved."""
    samples, scored, left = 0.0, 0.0, 1.0
    accept: dict[str, float] = {}
    shares: dict[str, float] = {}
    for stage in recipe.rewrite.stages:
        if not isinstance(stage, WavesConfig):
            continue
        accept[stage.name] = recipe.plan.accept.get(stage.name, _ACCEPT_SELF if stage.kind == "self" else _ACCEPT)
        drawn, missed = expected_samples(stage.waves, accept[stage.name])
        samples += left * drawn
        shares[stage.name] = left * (1 - missed)
        scored += shares[stage.name] if stage.kind != "self" else 0.0
        left *= missed
    return CascadeCost(
        samples, scored, accept, shares | {UNSOLVED if recipe.rewrite.expert == "none" else EXPERT: left}
    )
