"""Settings of the comparison of training methods, and of the gap between two models."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from offsft.config.base import PathText, Strict, refuse
from offsft.config.objective import Dft, Kl, Objective, Psft, Sft
from offsft.config.train import Lora, SourceWeights
from offsft.errors import ConfigError


class Arm(Strict):
    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    """Name of the arm in the table, and of its folders."""
    responses: Literal["kept", "expert"]
    """As `train.responses`: with rewriting or without."""
    objective: Objective
    """As `train.objective`."""
    source_weights: SourceWeights = {}
    """As `train.source_weights`; 0 for a source leaves its rows out."""
    learning_rate: float | None = Field(default=None, gt=0)
    """As `train.learning_rate`; unset: the recipe's. Not with `compare.learning_rates`, which all arms try."""
    lora: Lora | None = None
    """As `train.lora`; unset: the recipe's."""
    schedule: Literal["cosine", "constant"] | None = None
    """As `train.schedule`; unset: the recipe's."""
    epochs: int | None = Field(default=None, ge=1)
    """As `train.epochs`; unset: the recipe's."""
    rewrites: PathText | None = None
    """Folder of rewrites to train on, such as `runs/masked/rewrites`; unset: those of the comparison. For arms that rewrite in another way."""


class CompareConfig(Strict):
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2], min_length=1)
    """Seeds of the training order; each arm is trained once per seed."""
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
    """Arms to compare, each with `name`, `responses`, `objective`, and optionally `source_weights` and `learning_rate`."""
    learning_rates: list[Annotated[float, Field(gt=0)]] = []
    """Learning rates that every arm is trained with, by the first seed; the one with the best accuracy on the validation problems goes into the table. Empty: `train.learning_rate`, without a choice."""
    validation_problems: int = Field(default=0, ge=0)
    """Held-out problems, the first ones, that choose the learning rate and are left out of the table."""
    keep_models: bool = False
    """Keep the model of each arm and seed after its evaluation."""

    @model_validator(mode="after")
    def _distinct(self) -> "CompareConfig":
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"compare.arms names {', '.join(twice)} more than once; give each arm its own name")
        refuse(
            [
                (
                    len(self.learning_rates) > 1 and not self.validation_problems,
                    "compare.learning_rates are chosen on problems that are not reported; set compare.validation_problems,"
                    " for example to 100",
                ),
                (
                    bool(self.validation_problems) and len(self.learning_rates) < 2,
                    f"compare.validation_problems={self.validation_problems} have nothing to choose; name two or more"
                    " compare.learning_rates",
                ),
                (
                    len(set(self.learning_rates)) < len(self.learning_rates),
                    f"compare.learning_rates={self.learning_rates} holds a rate twice; give each once",
                ),
                *(
                    (
                        bool(self.learning_rates) and arm.learning_rate is not None,
                        f"compare.arms: {arm.name} has a learning_rate of its own beside compare.learning_rates, which every"
                        " arm tries alike; leave one out",
                    )
                    for arm in self.arms
                ),
            ]
        )
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"compare.seeds={self.seeds} holds a seed twice; give each once")
        return self


class GapSide(Strict):
    model: PathText = "policy"
    """Model that gives the log-probs: `policy` (model.path), `trained` (the run's trained model), or a folder or name as model.path."""
    rewrites: PathText | None = None
    """Folder of rewrites whose responses are measured, for example `runs/other/rewrites`; unset: the run's own."""
    responses: Literal["kept", "expert"] = "kept"
    """Responses that rewriting kept, or the expert's solutions of the same problems."""


class GapConfig(Strict):
    first: GapSide = GapSide(responses="expert")
    second: GapSide = GapSide()
