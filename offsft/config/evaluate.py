"""Settings of the evaluation."""

from typing import Literal

from pydantic import Field

from offsft.config.data import ProblemRows

PromptStyle = Literal["plain", "qwen-boxed", "llama-boxed"]


class Evaluate(ProblemRows):
    """Its `path` names held-out problems; it is not read where `suites` are named."""

    suites: list[str] = []
    """Benchmarks: `math500`, `minerva_math`, `olympiadbench`, `aime24`, `amc23`, `gsm8k`, or YAML files that describe others; empty: the problems at `path`."""
    suite_folder: str | None = None
    """Folder that holds the suites' files; unset: the one that OFFSFT_SHARED_DATA names. Rows that are not there come from Hugging Face."""
    models: list[str] = []
    """Models that are compared, each as `model.path` or `name=path`; empty: the policy (`base`) and the run's trained model (`trained`)."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many problems, of each suite; unset: all, and 100 generated ones."""
    style: PromptStyle | None = None
    """How a problem is asked: `plain` by `prompt.plain`; `qwen-boxed` and `llama-boxed` as the method's own evaluation asks these families; unset: as the suite says, else `plain`."""
    samples: int = Field(default=1, ge=1)
    """Samples a problem; accuracy is the mean over all."""
    greedy: bool = False
    """Sample one greedy answer more to each problem and measure it apart."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 leaves it off."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest response, in tokens."""

    @property
    def generated_problems(self) -> int:
        return self.limit or 100
