"""Doubt: words of hesitation and self-correction, which text written with the solution in view has less of.

After arXiv 2603.24472: such words fall from 182 to 9 a response, and students trained on it do worse on other problems.
"""

import re

_DOUBT = re.compile(
    r"\b(?:wait|hmm+|hold on|actually|perhaps|maybe|possibly|alternatively|not sure|unsure|i(?:'m| am) not certain"
    r"|i think|i guess|it seems|seems like|let(?:'s| me| us) (?:re-?)?(?:check|verify|reconsider|think|see|try|double)"
    r"|double-check|re-?check|reconsider|on second thought|mistake|oops|i was wrong|that(?:'s| is) (?:not right|wrong)"
    r"|doesn't (?:seem|look|make)|does not (?:seem|look|make)|but (?:then|that|this|if))\b",
    re.IGNORECASE,
)


def words_of_doubt(text: str) -> int:
    """The number of words and phrases of hesitation or self-correction in a text."""
    return len(_DOUBT.findall(text))


def doubt_rate(words: int, tokens: int) -> float | None:
    """Words of doubt per 1,000 tokens; None without tokens."""
    return 1000 * words / tokens if tokens else None
