"""The description of a benchmark, as `offsft/evaluate/suites.yaml` and users' files give it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from offsft.config.evaluate import PromptStyle
from offsft.errors import ConfigError
from offsft.strict import Strict


class Suite(Strict):
    name: str = Field(pattern=r"^[\w.+-]+$")
    """The suite's name in tables, and the beginning of its problems' ids."""
    file: str | None = None
    """File of the rows (JSONL or Parquet), relative to the suites' folder, or to the YAML file where that is a user's."""
    hub: str | None = None
    """Hugging Face data set (`owner/name`) with the same rows, for those who have a network and not the file."""
    hub_config: str | None = None
    """Configuration of the Hugging Face data set."""
    hub_split: str = "test"
    """Split of the Hugging Face data set."""
    problem: str = "problem"
    """Field that holds the problem's text."""
    answer: str = "answer"
    """Field that holds the reference answer: text, a number, or a list of texts."""
    answer_form: Literal["whole", "boxed", "hashes"] = "whole"
    """Where the answer stands in that field: it is the whole, the last `\\boxed{}`, or what follows the last `####`."""
    check: dict[str, str] = {}
    """Fields that hold what the verifier is told of each problem (docs/verifiers.md), by its name: `{unit: unit, absolute: error}`."""
    style: PromptStyle = "plain"
    """How a problem is asked, unless `evaluate.style` says otherwise."""
    verify: dict[str, Any] = {}
    """Settings of the verifier that differ from the recipe's `verify`."""

    @model_validator(mode="after")
    def _somewhere(self) -> "Suite":
        if self.file is None and self.hub is None:
            raise ConfigError(f"suite {self.name}: its rows are nowhere; give file or hub")
        return self
