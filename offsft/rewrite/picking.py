"""Which of several correct responses of a wave is kept."""

import math
import random
from collections.abc import Sequence
from typing import Literal

from offsft.errors import EngineError
from offsft.rewrite.judging import Judged

Pick = Literal["random", "shortest", "most_likely", "most_on_policy", "most_supported"]
SCORED: tuple[Pick, ...] = ("most_on_policy", "most_supported")
"""The picks that go by log-probs on the plain prompt."""


def pick_one(correct: Sequence[Judged], pick: Pick, seed: str) -> Judged:
    """The response that is kept.

    Raises:
        EngineError: the pick needs log-probs, which the engine does not give.
    """
    match pick:
        case "shortest":
            return min(correct, key=lambda each: len(each.completion.token_ids))
        case "most_likely":
            return max(correct, key=_sampled_logprob)
        case "most_on_policy":
            return max(correct, key=lambda each: _mean_policy_logprob(each, pick))
        case "most_supported":
            return max(correct, key=lambda each: _support(each, pick))
        case "random":
            return random.Random(seed).choice(correct)


def _sampled_logprob(judged: Judged) -> float:
    if judged.completion.logprobs is None:
        raise EngineError("rewrite.pick=most_likely needs the samples' log-probs, which the engine does not give")
    return math.fsum(judged.completion.logprobs)


def _mean_policy_logprob(judged: Judged, pick: Pick) -> float:
    if judged.policy_logprobs is None:
        raise EngineError(f"rewrite.pick={pick} needs an engine that scores, which this one does not")
    return math.fsum(judged.policy_logprobs) / len(judged.policy_logprobs)


def _support(judged: Judged, pick: Pick) -> tuple[float, float]:
    """The smaller of the answer's two log-probs; a response that states its value nowhere comes last."""
    measures = judged.measures
    known = [] if measures is None else [measures.support_first, measures.support_last]
    return min((each for each in known if each is not None), default=-math.inf), _mean_policy_logprob(judged, pick)
