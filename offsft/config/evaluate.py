"""Settings of the evaluation."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from offsft.config.base import FREE, PathText, expand_home, refuse
from offsft.config.data import ProblemRows

NamedPath = Annotated[str, AfterValidator(lambda entry: "=".join(map(expand_home, entry.split("=", 1))))]
"""A path, or `name=path`."""
PromptStyle = Literal["plain", "qwen-boxed", "llama-boxed", "choice", "code", "bare"]


class EvaluateConfig(ProblemRows):
    """Settings of the evaluation; `path` names the held-out problems and is not read if `suites` are named."""

    # Both lists may grow; `offsft.evaluate` checks, suite by suite and name by name, that existing entries stay.
    suites: Annotated[list[PathText], FREE] = []
    """Benchmarks by name, such as `math500`, `gsm8k`, `mmlu_stem`, `humaneval` or `ifeval` (docs/evaluation.md lists all), or YAML files that describe others; empty: the problems at `path`."""
    retention: Annotated[list[PathText], FREE] = []
    """Suites that show what the training cost elsewhere, named as in `suites`: asked in addition, and reported apart as the change from the first model."""
    drift_problems: Annotated[int, FREE] = Field(default=64, ge=0)
    """Problems on which the KL divergence from the first model to each other one is measured, over one sample of the first model at temperature 1; 0 leaves it out."""
    suite_folder: Annotated[PathText | None, FREE] = None
    """Folder that holds the suites' files; unset: the one that OFFSFT_SHARED_DATA names. Rows missing there come from Hugging Face."""
    models: Annotated[list[NamedPath], FREE] = []
    """Models to compare, each as `model.path` or `name=path`; empty: the policy (`base`) and the run's trained model (`trained`)."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of problems per suite, taken in order; unset: all, and 100 generated ones."""
    style: PromptStyle | None = None
    """Prompt style: `plain` uses `prompt.plain`; `qwen-boxed` and `llama-boxed` are the method's own evaluation prompts for these families; `choice` and `code` ask as these domains do; `bare` is the problem alone; unset: the suite's style, else `plain`."""
    samples: int = Field(default=1, ge=1)
    """Samples per problem; accuracy is the mean over all."""
    greedy: bool = False
    """Sample one additional greedy answer per problem and report it separately."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 leaves it off."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest response, in tokens."""

    @model_validator(mode="after")
    def _possible(self) -> "EvaluateConfig":
        greedy = self.temperature == 0
        refuse(
            [
                (
                    greedy and self.samples > 1,
                    f"evaluate.samples={self.samples} at evaluate.temperature=0 would give the same answer each"
                    " time; set evaluate.samples=1 or a temperature above 0",
                ),
                (
                    greedy and self.greedy,
                    "evaluate.greedy=true adds nothing at evaluate.temperature=0, which is greedy; leave it out",
                ),
                (
                    greedy and self.top_p < 1,
                    f"evaluate.top_p={self.top_p} has no effect at evaluate.temperature=0 (greedy);"
                    " leave it at 1 or set a temperature above 0",
                ),
            ]
        )
        return self

    @property
    def generated_problems(self) -> int:
        return self.limit or 100
