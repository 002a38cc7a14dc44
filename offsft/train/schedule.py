"""The learning rate as a function of the step alone, so that resuming needs only the step."""

import math
from typing import Literal


def learning_rate(
    step: int, *, peak: float, steps: int, warmup: float, schedule: Literal["cosine", "constant"]
) -> float:
    """Learning rate of a step (from 0): linear to `peak` over the share `warmup` of all steps, then the schedule."""
    warmup_steps = math.ceil(warmup * steps)
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))
