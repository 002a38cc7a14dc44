"""The description of a benchmark, as `offsft/data/suites.yaml` and users' files give it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from offsft.config.base import PathText, Strict
from offsft.config.data import AnswerIs
from offsft.config.evaluate import PromptStyle
from offsft.config.verify import VerifyConfig
from offsft.errors import ConfigError


class Suite(Strict):
    name: str = Field(pattern=r"^[\w.+-]+$")
    """Name of the suite in tables, and prefix of its problems' ids."""
    file: PathText | None = None
    """File of the rows (JSONL or Parquet), relative to the suites' folder, or to the user's YAML file that names it."""
    hub: str | None = None
    """Hugging Face data set (`owner/name`) with the same rows, which is downloaded if the file is missing."""
    hub_config: str | None = None
    """Configuration of the Hugging Face data set."""
    hub_split: str = "test"
    """Split of the Hugging Face data set."""
    rows: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] | None = None
    """Number of rows of the whole benchmark, or several where its editions differ; a file with another number is refused."""
    problem: str | list[str] = "problem"
    """Field that holds the problem's text; several are joined, and `{Body} {Question}` is a template of fields."""
    answer: str = "answer"
    """Field that holds the reference answer: text, a number, or a list of texts."""
    answer_form: Literal["whole", "boxed", "hashes", "none"] = "whole"
    """Where the answer is in that field: the whole field, the last `\\boxed{}`, or the text after the last `####`; `none` if the verifier needs none."""
    choices: str | list[str] | None = None
    """Field that holds the choices, or a list of fields with one each; they are put below the problem as A, B, ...."""
    answer_is: AnswerIs | None = None
    """What the answer says of the choices, as `data.fields.answer_is`."""
    check: dict[str, str] = {}
    """Fields that are passed to the verifier with each problem (docs/verifiers.md), by its name for them: `{unit: unit, absolute: error}`."""
    style: PromptStyle = "plain"
    """Prompt style, unless `evaluate.style` sets another."""
    verify: dict[str, Any] = {}
    """Settings of the verifier that differ from the recipe's `verify`."""

    @property
    def is_code(self) -> bool:
        """Whether tests judge its responses, so that its rows need no answer."""
        return self.verify.get("kind") == "code"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of rows that a whole benchmark may have; empty if none is known."""
        return () if self.rows is None else (self.rows,) if isinstance(self.rows, int) else self.rows

    @property
    def is_instructions(self) -> bool:
        """Whether its rows hold instructions that a response must follow, so that they need no answer."""
        return self.verify.get("kind") == "ifeval"

    def verifier(self, settings: VerifyConfig) -> VerifyConfig:
        """The recipe's settings of the verifier with those of the suite in their place."""
        return VerifyConfig.model_validate(settings.model_dump() | self.verify)

    @model_validator(mode="after")
    def _somewhere(self) -> "Suite":
        if self.file is None and self.hub is None:
            raise ConfigError(f"suite {self.name}: its rows are nowhere; give file or hub")
        return self
