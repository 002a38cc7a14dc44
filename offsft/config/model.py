"""Settings of the policy and of what it is asked."""

from typing import Literal

from pydantic import Field, model_validator

from offsft.errors import ConfigError
from offsft.strict import Strict


class Model(Strict):
    path: str = "embedded"
    """The policy: a Hugging Face model folder (local or s3://) or name, or `embedded` for the small model that the demo extra carries."""
    revision: str | None = None
    """Revision of a Hugging Face model name (commit, tag or branch)."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number type of the weights, in sampling and in training."""
    pickled_weights: bool = False
    """Load weights that are not safetensors: a pickle may run whatever code it holds, so only from those you trust."""
    context_tokens: int = Field(default=1024, ge=64)
    """Longest prompt and response together, in tokens."""


class Prompt(Strict):
    plain: str = "{problem}\n\nSolve the problem step by step, and put the final answer in \\boxed{}."
    """What the user's turn says; `{problem}` stands for the problem. The model is trained on this prompt."""
    guided: str = (
        "{problem}\n\nHere is one way to work it out:\n\n{solution}\n\nNow solve the problem in your own words, step by"
        " step, as if you had found the way yourself. Do not mention that a solution was shown. Put the final answer in"
        " \\boxed{}."
    )
    """The same with the expert's worked solution in view, for `{solution}`."""

    @model_validator(mode="after")
    def _placeholders(self) -> "Prompt":
        for name, text, needed in (
            ("plain", self.plain, ("{problem}",)),
            ("guided", self.guided, ("{problem}", "{solution}")),
        ):
            missing = [mark for mark in needed if mark not in text]
            if missing:
                raise ConfigError(
                    f"prompt.{name} does not contain {' and '.join(missing)}; put it where the text belongs"
                )
        return self
