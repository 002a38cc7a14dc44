"""Settings of the evaluation."""

from typing import Literal

from pydantic import Field

from offsft.config.data import Fields
from offsft.strict import Strict


class Evaluate(Strict):
    path: str | list[str] = "generated"
    """Held-out problems, as `data.path`; `generated` for the demo's held-out problems."""
    format: Literal["own", "gsm8k", "math", "numina"] = "own"
    """As `data.format`."""
    fields: Fields = Fields()
    """Field names for `format: own`."""
    limit: int = Field(default=100, ge=1)
    """Number of held-out problems."""
    samples: int = Field(default=1, ge=1)
    """Samples a problem; accuracy is the mean over all."""
    temperature: float = Field(default=1.0, ge=0, le=2)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1 leaves it off."""
    max_tokens: int = Field(default=256, ge=1)
    """Longest response, in tokens."""

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path
