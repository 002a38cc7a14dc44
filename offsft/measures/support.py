"""Answer support: how likely the policy, which sees no solution, finds the value that a response ends with.

A derivation makes its result likely: the policy that reads it on the plain prompt would write the same value. Where a
response derives something else and then states the answer that it was shown, that value comes as a surprise. A weak policy
computes honest steps with doubt, too, so figures are compared with those of the run's own (`self`) responses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from offsft.measures.spans import TokenSpans
from offsft.measures.stated import Span, Stated


@dataclass(frozen=True, slots=True)
class Support:
    """Log-probs of the answer's value, in nats, summed over its tokens; None where it is not stated or not known.

    `first` is at the first place where the response states it, `last` in its last mark.
    """

    first: float | None = None
    last: float | None = None

    @property
    def least(self) -> float | None:
        """The smaller one."""
        known = [each for each in (self.first, self.last) if each is not None]
        return min(known) if known else None


def answer_support(stated: Stated, spans: TokenSpans, logprobs: Sequence[float]) -> Support:
    """The support of an answer at its places, by one list of the response's log-probs `(T)` in nats."""
    return Support(_sum(stated.first, spans, logprobs), _sum(stated.last, spans, logprobs))


def _sum(place: Span | None, spans: TokenSpans, logprobs: Sequence[float]) -> float | None:
    if place is None:
        return None
    return math.fsum(logprobs[token] for token in spans.tokens(place.start, place.end))
