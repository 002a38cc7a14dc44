"""The setup that an engine of any kind is opened with, and the usage of a server."""

from dataclasses import dataclass

from offsft.config import EngineConfig, Recipe, RemoteConfig
from offsft.storage.paths import is_folder


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """One engine: the model it holds, how it samples, and the recipe's `engine` section; picklable.

    `model` is a folder, a Hugging Face name or an s3:// URL. `context_tokens` is the maximum length of prompt and
    response together. `raw_distribution` is False if sampling is not from the policy itself (a temperature or top-p
    other than 1): log-probs are then those of the distribution actually sampled from.
    """

    model: str
    revision: str | None
    dtype: str
    pickled_weights: bool
    context_tokens: int
    seed: int
    raw_distribution: bool
    engine: EngineConfig


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens used on a server that counts tokens, and may charge for them."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, more: "Usage") -> "Usage":
        return Usage(
            self.requests + more.requests,
            self.prompt_tokens + more.prompt_tokens,
            self.completion_tokens + more.completion_tokens,
        )

    def since(self, before: "Usage") -> "Usage":
        """The usage after `before`."""
        return Usage(
            self.requests - before.requests,
            self.prompt_tokens - before.prompt_tokens,
            self.completion_tokens - before.completion_tokens,
        )

    def cost(self, remote: RemoteConfig) -> float:
        """The cost, in the currency of the prices."""
        return (self.prompt_tokens * remote.prompt_price + self.completion_tokens * remote.completion_price) / 1e6


def engine_setup(recipe: Recipe, model: str, *, raw_distribution: bool) -> EngineSetup:
    """The setup of a recipe's engine for one model; a local folder has no revision."""
    return EngineSetup(
        model=model,
        revision=None if is_folder(model) else recipe.model.revision,
        dtype=recipe.model.dtype,
        pickled_weights=recipe.model.pickled_weights,
        context_tokens=recipe.model.context_tokens,
        seed=recipe.seed,
        raw_distribution=raw_distribution,
        engine=recipe.engine,
    )
