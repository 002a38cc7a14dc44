"""Settings of the comparison of training methods, and of the gap between two models."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from offsft.config.objective import Dft, Kl, Objective, Psft, Sft
from offsft.config.train import SourceWeights
from offsft.errors import ConfigError
from offsft.strict import Strict


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
