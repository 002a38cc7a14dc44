"""`verify.kind=choice`: the response chooses the letter of the reference answer."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

from offsft.config import VerifyConfig
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.answer import TAIL_CHARACTERS, candidates
from offsft.verify.text import normalise
from offsft.verify.thoughts import without_thoughts

LETTERS = "ABCDEFGHIJKLMNOP"
_LONGEST = 400
"""Maximum characters of a choice with its text."""

_DRESS = r"(?:\\(?:text(?:bf|rm|it)?|mathrm|mathbf|mbox)\s*\{|[\s(\[{*_`\"'$]|\\[(\[])*"
_NOUN = r"(?:(?i:the\s+)?(?i:correct\s+|final\s+|right\s+|best\s+)?(?i:option|choice|answer|letter|alternative|选项|選項)[\s:*_]*)?"
_BARE = re.compile(
    rf"{_DRESS}{_NOUN}{_DRESS}(?P<letter>[A-Pa-p])(?!\s*(?:,|and\b|or\b)\s*(?:and\s+|or\s+)?\(?[A-P]\b)(?P<rest>[\s)\]}}.:：,*_$`\"'\\]*(?:$|[)\]}}.:：,。]\s*.*|\s+[-–—]\s.*|\*\*\s.*))",
    re.DOTALL,
)
_LETTER = r"(?:[B-HJ-P](?![A-Za-z'])|[AI](?![A-Za-z']|\s+[a-z]{2,}))"
_BEHIND = rf"[\s:：*_=$]*{_DRESS}{_NOUN}{_DRESS}(?P<letter>{_LETTER})"
_IS = r"(?:\s+(?i:is|are|would\s+be|must\s+be|should\s+be|seems\s+to\s+be|has\s+to\s+be|therefore|thus))"
# Phrases by which a response chooses. A letter that is only mentioned (`Option A`) is not a choice.
_CHOOSING = (
    # `the answer is B`, `Answer: B`, `the correct option is therefore (B)`
    re.compile(rf"\b(?i:answer|(?:correct|right|best)\s+(?:one|option|choice|letter|alternative))\b(?:{_IS}+(?:\s+(?i:the))?|\s*[:：=]){_BEHIND}"),
    # `I choose B`, `we select option B`, `my choice: B`, `go with B`
    re.compile(
        rf"\b(?i:(?:I|we|I'll|I\s+would|I'd|we'd|to|must|should|can|and|so|therefore|thus)\s+(?:therefore\s+|would\s+)?(?:choose|pick|select)|go(?:ing)?\s+with"
        rf"|(?:my|our|the)\s+(?:final\s+)?(?:choice|pick|selection)(?:\s+is)?|settle\s+on|opt\s+for|correct){_BEHIND}"
    ),
    re.compile(rf"^[\s*_#]*(?i:choice|option|choose|select){_BEHIND}[\s.)*_$}}]*(?=$|\bbecause\b)", re.MULTILINE),
    # `(B) is correct`, `option B is the right answer`, `B must be right`
    re.compile(
        r"(?:^|[\s(*_])\(?(?P<letter>[A-P])\)?[\s*_]*(?i:is|would\s+be|must\s+be|has\s+to\s+be)\s+(?i:(?:therefore|thus|clearly|indeed)\s+)?"
        r"(?i:the\s+)?(?i:correct|right|best|answer|true\s+one)\b(?!\s+(?i:only\s+)?(?i:if|when|unless)\b)",
        re.MULTILINE,
    ),
    # `Answer D`, `Ans: D`, `Final answer - D` as a line, and `..., so D.` or `it's D` at the end
    re.compile(r"\b(?i:answer|ans)[\s:：.–-]{1,4}[(*]*(?P<letter>[A-P])[)*]*[.\s]*$", re.MULTILINE),
    re.compile(r"\b(?i:so|thus|therefore|hence|it's|it\s+is)[,:]?\s+(?i:it's\s+|it\s+is\s+)?[(*]*(?P<letter>[A-P])[)*]*[.\s]*\Z"),
    # Chinese, Japanese, Korean, German, French, Spanish, Portuguese, Italian, Russian
    re.compile(rf"(?:故|应|應|因此|所以|我|就|则|正确选项[是为為]?|正確選項[是为為]?)?[选選](?:择|擇)?(?:项|項)?(?:[是为為])?{_BEHIND}"),
    re.compile(rf"(?:正解|答え|解答)は{_BEHIND}|(?:정답|답)[은는이]{_BEHIND.replace('?P<letter>', '')}"),
    re.compile(rf"(?i:richtig\s+ist|korrekt\s+ist|la\s+bonne\s+réponse\s+est|la\s+opción\s+correcta\s+es|a\s+alternativa\s+correta\s+é|правильный\s+ответ){_BEHIND}"),
)  # fmt: skip
_NEGATED = re.compile(r"(?i:\b(?:not|isn't|never|cannot|can't|incorrect|wrong|neither|nor|except)\b)")
_NOT_BEFORE = re.compile(r"(?i:\b(?:not|n't|never|why|if|whether|neither|nor)\s+(?:\w+\s+)?)$")
_LINE = re.compile(r"[\s*_#]*\(?(?P<letter>[A-P])\)?[\s.):*_]*")


class ChoiceJudge:
    """Judges a choice: `answer` is a letter; stating one of the texts in `check.choices`, if given, is a choice too."""

    def __init__(self, settings: VerifyConfig) -> None:
        pass

    def __call__(self, response: str, problem: Problem) -> Verdict:
        choices = _texts(problem.check.get("choices"))
        wanted = _wanted(problem.answer, choices)
        if wanted is None:
            return Verdict(
                Outcome.ERROR, why=f"the reference answer {problem.answer[:40]!r} is not the letter of a choice"
            )
        chosen, where = chosen_letter(response, choices)
        if chosen is None:
            return Verdict(Outcome.NO_ANSWER, why="no choice is stated")
        outcome = Outcome.CORRECT if chosen == wanted else Outcome.WRONG
        return Verdict(outcome, chosen, where, f"{chosen} chosen, {wanted} wanted")


def _texts(choices: Any) -> list[str]:
    """The choices' texts; ARC stores them in lists `label` and `text`, others as objects with a `text`."""
    if isinstance(choices, dict):
        choices = choices.get("text", list(choices.values()))
    return [str(each.get("text", each) if isinstance(each, dict) else each) for each in choices or []]


def _wanted(answer: str, choices: list[str]) -> str | None:
    """The letter of a reference answer, which may be in parentheses or followed by its text.

    A number is not a letter: it could be a position or a text.
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    read = None if answer.strip().isdigit() else _letter_of(answer, letters, choices)
    return read[0] if read is not None else None


class _Chosen(NamedTuple):
    start: int
    letter: str
    where: str


def chosen_letter(response: str, choices: list[str]) -> tuple[str | None, str]:
    """The letter that a response chooses and where: `box`, `statement`, `choice text`, ...; the last choice counts.

    A marked answer that is not a choice, such as a box around a formula, is skipped.
    """
    response = unicodedata.normalize("NFKC", response[-2 * TAIL_CHARACTERS :])  # full-width letters and brackets
    tail = without_thoughts(response)[-TAIL_CHARACTERS:]
    letters = LETTERS[: len(choices)] if choices else LETTERS
    found = [each for each in (*_marked(response, letters, choices), *_chosen(tail)) if each.letter in letters]
    if not found:
        found = [each for each in _lines(tail, letters, choices) if each.letter in letters]
    if not found:
        return None, ""
    last = max(found, key=lambda each: each.start)
    return last.letter, last.where


def _marked(response: str, letters: str, choices: list[str]) -> Iterator[_Chosen]:
    """Choices made in boxes, statements, tags and headings."""
    for candidate in candidates(response):
        read = _letter_of(candidate.text, letters, choices)
        if read is not None:
            yield _Chosen(candidate.start, read[0], read[1] or candidate.where)


def _chosen(tail: str) -> Iterator[_Chosen]:
    for form in _CHOOSING:
        for match in form.finditer(tail):
            negated = _NEGATED.search(match[0]) or _NOT_BEFORE.search(tail, max(0, match.start() - 20), match.start())
            if match["letter"] and not negated:
                yield _Chosen(match.start("letter"), match["letter"], "statement")


def _lines(tail: str, letters: str, choices: list[str]) -> Iterator[_Chosen]:
    """A choice alone on the last line or the first: an explanation may follow it."""
    lines = tail.strip().splitlines()
    for position, line in ((1, lines[-1]), (0, lines[0])) if lines else ():
        alone = _LINE.fullmatch(line)
        read = (
            (alone["letter"], "")
            if alone
            else _letter_of(line, letters, choices)
            if position or len(lines) == 1
            else None
        )
        if read is not None:
            yield _Chosen(position, read[0], read[1] or "statement")


def _letter_of(text: str, letters: str, choices: list[str]) -> tuple[str, str] | None:
    """The letter that a text is, or the letter of the choice that it states, then with `choice text`."""
    match = _BARE.fullmatch(text.strip()) if len(text) < _LONGEST else None
    if match is not None and match["letter"].upper() in letters:
        return match["letter"].upper(), ""
    said = normalise(text)
    same = [letter for letter, choice in zip(letters, choices, strict=False) if normalise(choice) == said]
    return (same[0], "choice text") if len(same) == 1 else None
