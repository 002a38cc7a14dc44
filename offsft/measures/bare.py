"""Bare responses: an answer without a derivation, where the expert's solution derives it."""

import re

from offsft.measures.stated import NUMBER, last_answer, value_of

_NUMBER_WORD = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    r"|hundred|thousand|dozen|half|halves|twice|double|triple|third|thirds|quarter|quarters)\b",
    re.IGNORECASE,
)


def is_bare(response: str, solution: str, answer: str) -> bool | None:
    """Whether a response mentions no number but its answer's, though the expert's solution does.

    `answer` is the reference. None if the expert mentions no other number either: then nothing says how an answer would be
    derived.
    """
    if not _numbers(solution) - _numbers(answer):
        return None
    stated = last_answer(response)
    return stated is not None and not _numbers(response) - _numbers(stated)


def _numbers(text: str) -> set[str]:
    return {value_of(number) for number in NUMBER.findall(text)} | {word.lower() for word in _NUMBER_WORD.findall(text)}
