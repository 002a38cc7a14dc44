"""Settings of the guards: which correct responses are refused for what the hint did to them."""

from typing import Annotated

from pydantic import Field

from offsft.config.base import Strict


class GuardConfig(Strict):
    """Thresholds for correct responses whose prompt shows more than the problem; `null` switches a guard off."""

    enabled: bool = True
    """Whether guards refuse anything; the measures are kept in any case."""
    leaks: bool = True
    """Refuse a response that mentions what it was shown, speaks to somebody, or repeats the prompt's example (`leaked`)."""
    bare: bool = True
    """Refuse a response that states its answer and no other number, where the expert's solution has some (`bare`)."""
    false_steps: Annotated[int, Field(ge=0)] | None = 0
    """Most equations between numbers that may not hold (`false_step`)."""
    copied_share: Annotated[float, Field(gt=0, le=1)] | None = 0.9
    """Largest share of a response's n-grams that may stand in the expert's solution (`copied`)."""
    support: Annotated[float, Field(le=0)] | None = -2.3
    """Lowest log-prob (nats) of the answer's value under the policy on the plain prompt, in its last mark (`unsupported`)."""
    first_support: Annotated[float, Field(le=0)] | None = -2.3
    """The same at the first place where the response states the value (`unsupported`)."""
    hint_lift: Annotated[float, Field(gt=0)] | None = None
    """Largest log-ratio (nats) that a passage of eight tokens may have, with the solution in view against without (`leaked`). Only at temperature 1 and top-p 1."""

    @property
    def need_scores(self) -> bool:
        """Whether a guard reads log-probs on the plain prompt."""
        return self.enabled and any(limit is not None for limit in (self.support, self.first_support, self.hint_lift))
