"""What an engine's actor is given: the model, how it samples and verifies, and the stage that it works for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsft.config import Recipe, VerifyConfig
from offsft.inference.engines.base import EngineSetup, engine_setup
from offsft.prompts import Prompts, load_prompts
from offsft.protocols import Sampler
from offsft.storage.paths import StoragePath

SamplerFactory = Callable[[Prompts], Sampler]


@dataclass(frozen=True)
class EngineSpec:
    """Everything that an engine actor needs; picklable.

    `run` is the run's name, `policy` the model's name in rows. `sampler_factory` replaces the engine in tests and
    simulations.
    """

    run: str
    policy: str
    setup: EngineSetup
    verify: VerifyConfig
    prompts: Prompts
    thinking_tokens: int | None
    logs: str
    quarantine: str
    coordinator: Any
    sampler_factory: SamplerFactory | None = None


def engine_spec(
    recipe: Recipe,
    *,
    model: str,
    policy: str,
    raw_distribution: bool,
    logs: StoragePath,
    quarantine: StoragePath,
    coordinator: Any,
    sampler_factory: SamplerFactory | None,
) -> EngineSpec:
    """The spec of a recipe's engines for one model, given as a folder or name."""
    setup = engine_setup(recipe, model, raw_distribution=raw_distribution)
    return EngineSpec(
        run=Path(recipe.run).name,
        policy=policy,
        setup=setup,
        verify=recipe.verify,
        prompts=load_prompts(model, setup.revision, recipe.prompt, recipe.model.thinking),
        thinking_tokens=recipe.model.thinking_tokens,
        logs=str(logs),
        quarantine=str(quarantine),
        coordinator=coordinator,
        sampler_factory=sampler_factory,
    )
