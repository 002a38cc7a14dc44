"""`verify.kind=choice`: the response chooses the letter of the reference answer."""

import re

from offsft.boxed import boxed_answer
from offsft.config import Verify
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.math import located_answer
from offsft.verify.text import normalised

LETTERS = "ABCDEFGHIJKLMNOP"
_TAIL_CHARACTERS = 20_000
_BARE = re.compile(
    r"[\s$*_`\"'(\[{]*(?:\\(?:text|mathrm|mathbf|textbf)\s*\{)?[\s(\[]*(?P<letter>[A-Pa-p])(?P<rest>[\s)\]}.:*_$`\"',]*(?:$|[)\]}.:,]\s*.*))",
    re.DOTALL,
)
_STATED = re.compile(
    r"(?:\b(?i:answer|choice|option|choose|pick|select|correct(?:\s+(?:one|answer|choice|option))?)\b"
    r"(?:\s+(?i:is|are|would\s+be|must\s+be|should\s+be|option|choice|letter|answer|the|correct|therefore|thus))*[\s:*_=$]*"
    r"(?:\\text\{)?[\s(\[*_\"'`]*(?P<after>[B-HJ-P](?![A-Za-z'])|[AI](?![A-Za-z']|\s+[a-z]{2,})))"
    r"|(?:^|[\s(*_])\(?(?P<before>[A-P])\)?[\s*_]*(?i:is|would\s+be|must\s+be)\s+(?i:the\s+)?(?i:correct|right|best|answer)\b"
    r"|^[\s*_]*\(?(?P<line>[A-P])\)?[\s.:)*_]*\Z"
)  # fmt: skip
_NEGATED = re.compile(r"(?i:\b(?:not|isn't|never|cannot\s+be|can't\s+be|incorrect|wrong)\b)")


class ChoiceJudge:
    """`answer` is a letter; `check.choices`, where there is one, lists the texts, and stating one of them is a choice."""

    def __init__(self, settings: Verify) -> None:
        pass

    def __call__(self, response: str, problem: Problem) -> Verdict:
        choices = [str(choice) for choice in problem.check.get("choices", [])]
        wanted = problem.answer.strip().strip("().").upper()
        if len(wanted) != 1 or wanted not in (LETTERS[: len(choices)] if choices else LETTERS):
            return Verdict(
                Outcome.ERROR, why=f"the reference answer {problem.answer[:40]!r} is not the letter of a choice"
            )
        chosen, where = chosen_letter(response, choices)
        if chosen is None:
            return Verdict(Outcome.NO_ANSWER, why="no choice is stated")
        outcome = Outcome.CORRECT if chosen == wanted else Outcome.WRONG
        return Verdict(outcome, chosen, where, f"{chosen} chosen, {wanted} wanted")


def chosen_letter(response: str, choices: list[str]) -> tuple[str | None, str]:
    """The letter that a response chooses and where: `box`, `statement`, or `choice text`; the last statement counts."""
    tail = response[-_TAIL_CHARACTERS:].strip()
    letters = LETTERS[: len(choices)] if choices else LETTERS
    boxed = boxed_answer(tail)
    stated = [boxed] if boxed else []
    where = "box"
    if not stated:
        where = "statement"
        found = [match for match in _STATED.finditer(tail) if not _NEGATED.search(match[0])]
        last = tail.splitlines()[-1] if tail else ""
        if found:
            letter = next(filter(None, found[-1].groups()))
            return (letter, where) if letter in letters else (None, "")
        stated = [text for text in (located_answer(tail)[0], last) if text]
    for text in stated:
        match = _BARE.fullmatch(text.strip())
        if match is not None and match["letter"].upper() in letters and len(match["rest"]) < 400:
            return match["letter"].upper(), where
        said = normalised(text)
        same = [letter for letter, choice in zip(letters, choices, strict=False) if normalised(choice) == said]
        if len(same) == 1:
            return same[0], "choice text"
    return None, ""
