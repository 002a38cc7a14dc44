"""Guards: the correct responses that are refused, by their measures and the recipe's thresholds."""

from offsft.config.guards import GuardConfig
from offsft.records import Measures, Outcome

Refusal = tuple[Outcome, str | None]
"""The outcome of a refused response, and the reason in a few words; a stage's own refusal says none."""


def refuses_text(measures: Measures, false_steps: tuple[str, ...], guards: GuardConfig) -> Refusal | None:
    """The first reason to refuse a response that needs no log-probs; None to let it pass."""
    if guards.leaks and measures.leak is not None:
        return Outcome.LEAKED, measures.leak
    if guards.bare and measures.bare:
        return Outcome.BARE, "no number but the answer"
    if guards.false_steps is not None and len(false_steps) > guards.false_steps:
        return Outcome.FALSE_STEP, "; ".join(false_steps)
    share = measures.copied_share
    if guards.copied_share is not None and share is not None and share > guards.copied_share:
        return Outcome.COPIED, f"{share:.0%} of its n-grams are the expert's"
    return None


def refuses_scored(measures: Measures, guards: GuardConfig) -> Refusal | None:
    """The first reason to refuse a response for its log-probs; what could not be measured passes."""
    for where, support, least in (
        ("in its last mark", measures.support_last, guards.support),
        ("where it is first stated", measures.support_first, guards.first_support),
    ):
        if least is not None and support is not None and support < least:
            return Outcome.UNSUPPORTED, f"the answer has log-prob {support:.1f} {where}"
    if guards.hint_lift is not None and measures.hint_lift is not None and measures.hint_lift > guards.hint_lift:
        return Outcome.LEAKED, f"a passage is {measures.hint_lift:.1f} nats likelier with the solution in view"
    return None
