"""All measures of one response, from its text, its token ids and its log-probs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from offsft.measures.bare import is_bare
from offsft.measures.copying import longest_common_span, shared_grams
from offsft.measures.doubt import doubt_rate, words_of_doubt
from offsft.measures.false_steps import check_steps
from offsft.measures.leaks import hint_lift, leak_in_words, parroted
from offsft.measures.spans import Decode, TokenSpans
from offsft.measures.stated import stated_answer
from offsft.measures.support import Support, answer_support
from offsft.records import Measures, Problem


@dataclass(frozen=True, slots=True)
class Sample:
    """A response to measure: its text and ids; the text of the prompt that it was sampled from, if that may leak."""

    text: str
    ids: Sequence[int]
    prompt: str = ""
    shown: str = ""
    """What the prompt shows of the problem and its solutions; repeating it is no leak, but copying."""


def measure_text(sample: Sample, problem: Problem, expert_ids: Sequence[int]) -> tuple[Measures, tuple[str, ...]]:
    """The measures that need no log-probs, and the equations that do not hold."""
    steps = check_steps(sample.text)
    shown = f"{problem.problem}\n{problem.solution}\n{sample.shown}"
    found = Measures(
        holding_steps=steps.holding,
        false_steps=len(steps.false),
        steps_not_judged=steps.not_judged,
        copied_tokens=longest_common_span(sample.ids, expert_ids),
        copied_share=shared_grams(sample.ids, expert_ids),
        expert_length=len(sample.ids) / len(expert_ids) if expert_ids else None,
        doubt=doubt_rate(words_of_doubt(sample.text), len(sample.ids)),
        leak=leak_in_words(sample.text) or (parroted(sample.text, sample.prompt, shown) if sample.prompt else None),
        bare=is_bare(sample.text, problem.solution, problem.answer),
    )
    return found, steps.false


def with_scores(
    found: Measures,
    sample: Sample,
    problem: Problem,
    decode: Decode,
    policy_logprobs: Sequence[float] | None,
    hinted_logprobs: Sequence[float] | None = None,
) -> Measures:
    """The measures with those of log-probs added, each `(T)` in nats.

    `policy_logprobs` are those on the plain prompt; `hinted_logprobs` are the same policy's with a solution in view, None
    for other responses and where sampling is from another distribution than the policy's.
    """
    if policy_logprobs is None:
        return found
    spans = TokenSpans(sample.ids, decode)
    support = Support()
    if spans.matches(sample.text):
        support = answer_support(stated_answer(sample.text, problem.problem), spans, policy_logprobs)
    lift = None if hinted_logprobs is None else hint_lift(hinted_logprobs, policy_logprobs)
    return replace(found, support_first=support.first, support_last=support.last, hint_lift=lift)


def against_own(found: Measures, ids: Sequence[int], own: Sequence[tuple[str, int]]) -> Measures:
    """The measures compared with the policy's own finished samples of the problem: (text, tokens) of each."""
    tokens = sum(length for _, length in own)
    if not tokens:
        return found
    doubt = doubt_rate(sum(words_of_doubt(text) for text, _ in own), tokens)
    return replace(found, own_length=len(ids) * len(own) / tokens, own_doubt=doubt)
