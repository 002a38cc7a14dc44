"""Leaks: what a response says because a solution was in view, in words and by likelihood.

In words: it mentions that solution, speaks to somebody who gave it, or repeats the prompt's own example. By likelihood:
a passage that is far likelier with the solution in view than without.
"""

import re
from collections.abc import Sequence

import numpy as np

WINDOW = 8
"""Tokens of a passage."""
_PARROTED_WORDS = 6
"""Shortest run of words that, taken from the prompt, is a repetition rather than a phrase of the task."""
_WORD = re.compile(r"\w+")

_THING = r"(?:solution|approach|method|explanation|answer|reasoning|calculations?|steps|work(?:ing)?|hint|example|way|breakdown)"
_LEAKS = re.compile(
    r"\b(?:reference|provided|given|shown|expert|above|original|suggested|your|previous|presented)(?:'s)?\s+"
    r"(?:solution|approach|method|explanation|reasoning|hint|working|breakdown|calculations?)\b"
    r"|\b(?:solution|approach|method|explanation|hint)\s+(?:(?:that|which)\s+)?(?:(?:was|is|were|you|has been|have been)\s+)?"
    r"(?:shown|provided|given|gave|presented|outlined|described above|wrote)\b"
    r"|\bthe hints?\b|\bone way to work it out\b|\bin (?:my|your|our) own words\b"
    # Speaking to somebody.
    rf"|\byou(?:'re| are|r answer is|r {_THING} is)\s+(?:absolutely\s+|quite\s+|all\s+)?(?:right|correct)\b"
    r"|\b(?:that|this)(?:'s| is)\s+(?:absolutely\s+|quite\s+)?(?:right|correct)\s*[!,]"
    r"|\bas (?:you|i) (?:said|mentioned|stated|noted|pointed out|suggested|showed|explained|wrote|described)\b"
    r"|\bas (?:given|shown|stated|described|explained|mentioned|outlined|calculated|provided) (?:above|before|earlier|previously|in the (?:solution|explanation|hint|prompt))\b"
    rf"|\b(?:thanks|thank you)(?: (?:so|very) much)?(?: for (?:the|your|this|that|sharing|providing|showing)|[!.,])"
    rf"|\b(?:great|good|nice|well|excellent)\s+(?:job|work|done|explanation)\b"
    r"|\byou are a helpful\b|\bi(?:'m| am) (?:glad you|(?:here|happy|ready) to (?:help|assist))\b"
    r"|\byou(?:'ve| have) (?:already |just )?(?:told|given|shown|said|answered|solved|provided)\b"
    r"|\byou(?:'re| are) struggling\b|\b(?:there(?:'s| is)|been) a misunderstanding\b|\bmore detailed explanation\b"
    r"|\b(?:original|different version of the) answer\b"
    r"|\bi(?:'ve| have)? (?:apologi[sz]e|misunderst(?:ood|and))\b"
    r"|\bwithout (?:mentioning|referring to|showing) (?:the|a|any|that)\b"
    r"|\bas if (?:i|you|we)(?: had|'d) found\b",
    re.IGNORECASE,
)


def leak_in_words(text: str) -> str | None:
    """The first phrase with which a response mentions what it was shown, or speaks to who showed it; None without one."""
    match = _LEAKS.search(text)
    return match[0] if match else None


def parroted(text: str, prompt: str, shown: str) -> str | None:
    """A run of words with a number in it that a response repeats from its prompt: the example that it gives.

    `shown` is what the prompt has of the problem and its solutions, which are no example.
    """
    words = _WORD.findall(text.lower())
    said = {run for run in _runs(prompt) if any(word.isdigit() for word in run)} - _runs(shown)
    for start in range(len(words) - _PARROTED_WORDS + 1) if said else ():
        run = tuple(words[start : start + _PARROTED_WORDS])
        if run in said:
            return " ".join(run)
    return None


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return {tuple(words[start : start + _PARROTED_WORDS]) for start in range(len(words) - _PARROTED_WORDS + 1)}


def hint_lift(behavior_logprobs: Sequence[float], policy_logprobs: Sequence[float]) -> float:
    """The largest log-ratio of behaviour to policy that WINDOW tokens in a row add up to, in nats.

    Both lists have one entry per response token `(T)`: with the solution in view, and on the plain prompt.
    """
    ratios_T = np.asarray(behavior_logprobs, dtype=np.float64) - np.asarray(policy_logprobs, dtype=np.float64)
    if not len(ratios_T):
        return 0.0
    sums = np.concatenate([[0.0], np.cumsum(ratios_T)])
    width = min(WINDOW, len(ratios_T))
    return float(np.max(sums[width:] - sums[:-width]))
