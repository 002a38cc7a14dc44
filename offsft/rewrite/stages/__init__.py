"""The stages of the cascade: one file and one table entry each; a user's class is given by its path."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from offsft.config.class_path import load_class
from offsft.config.loading import explain
from offsft.config.stages import StageConfig
from offsft.errors import ConfigError
from offsft.prompts import Prompts
from offsft.rewrite.solved import SolvedProblems
from offsft.rewrite.stages.base import Stage

_CLASSES = {
    "self": "offsft.rewrite.stages.self_solve:SelfSolve",
    "examples": "offsft.rewrite.stages.examples:Examples",
    "refine": "offsft.rewrite.stages.refine:Refine",
    "prefix": "offsft.rewrite.stages.prefix:Prefix",
    "masked": "offsft.rewrite.stages.masked:Masked",
    "teacher": "offsft.rewrite.stages.teacher:Teacher",
    "guided": "offsft.rewrite.stages.guided:Guided",
    "expert": "offsft.rewrite.stages.expert:Expert",
}


def check_stages(configs: Sequence[StageConfig]) -> None:
    """Import each stage's class and check its options, so that a wrong recipe is refused before an engine starts.

    Raises:
        ConfigError: a class cannot be found, or does not know an option.
    """
    for config in configs:
        _checked(config)


def open_stages(
    configs: Sequence[StageConfig], prompts: Prompts, solved: SolvedProblems | None = None
) -> Mapping[str, Stage[Any]]:
    """Open a recipe's stages, by name, in its order; `close()` of each releases its resources.

    `solved` holds the problems that the run has solved, for stages that show some.

    Raises:
        ConfigError: a class cannot be found, or does not know an option.
    """
    opened: dict[str, Stage[Any]] = {}
    for config in configs:
        stage, settings = _checked(config)
        opened[config.name] = stage(settings, prompts)
        opened[config.name].solved = solved
    return opened


def _checked(config: StageConfig) -> tuple[type[Stage[Any]], StageConfig]:
    setting = f"rewrite.stages.{config.name}"
    stage = load_class(_CLASSES.get(config.kind, config.kind), f"{setting}.kind")
    if not issubclass(stage, Stage):
        raise ConfigError(
            f"{setting}.kind={config.kind}: {stage.__name__} does not derive from {Stage.__module__}:Stage"
        )
    if type(config) is stage.config:
        return stage, config
    options = config.model_dump()
    try:
        return stage, stage.config.model_validate(options)
    except ValidationError as error:
        told = "; ".join(explain(e, options, stage.config, f"{setting}.") for e in error.errors())
        raise ConfigError(told) from None
