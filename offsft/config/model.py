"""Settings of the policy and its prompts."""

import datetime
from typing import Literal

from pydantic import Field, model_validator

from offsft.config.base import PathText, Strict
from offsft.errors import ConfigError

Thinking = Literal["auto", "on", "off"]


class ModelConfig(Strict):
    path: PathText = "embedded"
    """The policy: a Hugging Face model folder (local or s3://) or name, or `embedded` for the small model that the demo extra carries."""
    revision: str | None = None
    """Revision of a Hugging Face model name (commit, tag or branch)."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number type of the weights, in sampling and in training; `auto` is bfloat16 on GPUs and on processors with instructions for it, else float32."""
    pickled_weights: bool = False
    """Load weights that are not safetensors: a pickle can run arbitrary code, so only from sources you trust."""
    context_tokens: int = Field(default=1024, ge=64)
    """Longest prompt and response together, in tokens."""
    thinking: Thinking = "auto"
    """Whether a model that can think before it answers does so, by its chat template's own switch; `auto` is the template's default."""
    thinking_tokens: int | None = Field(default=None, ge=1)
    """Longest thought, in tokens, as a part of the response's `max_tokens`; a thought that is still open then is `truncated`. Unset: only `max_tokens` bounds it."""


class PromptConfig(Strict):
    plain: str = "{problem}\n\nSolve the problem step by step, and put the final answer in \\boxed{}."
    """Text of the user's turn; `{problem}` stands for the problem. The model is trained on this prompt."""
    guided: str = (
        "{problem}\n\nHere is one way to work it out:\n\n{solution}\n\nNow solve the problem in your own words, step by"
        " step, as if you had found the way yourself. Do not mention that a solution was shown. Put the final answer in"
        " \\boxed{}."
    )
    """The same with the expert's worked solution in place of `{solution}`."""
    template: Literal["chat", "none"] = "chat"
    """How turns become text: `chat` by the tokenizer's chat template; `none` as plain text, for a model without one: the prompt, an empty line, the response, and the model's end token."""
    system: str | None = Field(default=None, min_length=1)
    """Text of the system's turn; unset: none, and the chat template may put its own default there."""
    date: datetime.date = datetime.date(2024, 7, 26)
    """The day that a chat template with a date in it shows. It is fixed, so that a run's prompts do not change overnight."""
    expert_thought: str = ""
    """The thought that a thinking model's expert solutions follow; empty: an empty thought, as the chat template writes it. A solution that begins with a thought of its own keeps that."""

    @model_validator(mode="after")
    def _placeholders(self) -> "PromptConfig":
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
