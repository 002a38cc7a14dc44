"""Settings of the probe, which tries objectives for a few steps each."""

import json
from typing import Literal

from pydantic import Field, model_validator

from offsft.config.base import Strict
from offsft.config.objective import Dft, Eaft, Idft, Objective, Power, Sft
from offsft.errors import ConfigError


class ProbeConfig(Strict):
    objectives: list[Objective] = Field(default=[Sft(), Dft(), Power(), Idft(), Eaft()], min_length=2)
    """Objectives to try, each as `train.objective`; by default those that take nothing beside the step, such as a reference pass."""
    responses: Literal["kept", "expert"] | None = None
    """As `train.responses`; unset: the recipe's. With `expert` a run needs no rewrites."""
    steps: int = Field(default=12, ge=1)
    """Optimizer steps of each training; where the rows are few they are passed over several times, and the last pass is completed."""
    train_rows: int = Field(default=256, ge=1)
    """Most rows to train on."""
    held_out_rows: int = Field(default=64, ge=2)
    """Most problems that are not trained on but measured before and after; at most a third of those that there are."""
    keep_models: bool = False
    """Keep the model of each objective."""

    @model_validator(mode="after")
    def _distinct(self) -> "ProbeConfig":
        names = [objective_name(each) for each in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"probe.objectives names {'; '.join(twice)} more than once; give each once")
        return self


def own_settings(objective: Objective) -> dict[str, object]:
    """An objective's settings that differ from the defaults of its kind."""
    return objective.model_dump(exclude_defaults=True, exclude={"kind"})


def objective_name(objective: Objective) -> str:
    """An objective's kind, with its settings where they are not the defaults: `power, exponent=0.3`."""
    return ", ".join(
        [objective.kind, *(f"{key}={json.dumps(value)}" for key, value in own_settings(objective).items())]
    )
