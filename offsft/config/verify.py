"""Settings of the verifier."""

from typing import Literal

from pydantic import Field

from offsft.strict import Strict


class Verify(Strict):
    kind: Literal["math"] = "math"
    """How answers are compared; `math` is symbolic and numeric equality by math-verify."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Limit for one response, seconds; the process that exceeds it is killed."""
    memory_mb: int = Field(default=1024, ge=256)
    """Limit for one verifying process, MiB."""
    workers: int = Field(default=1, ge=1)
    """Verifying processes beside each engine."""
