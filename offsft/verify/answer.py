"""Locates the final answer in a text, for intake, verifiers and suites alike.

Thoughts are cut off first. Then every mark is a candidate (boxes, statements, tags, headings; `offsft.verify.marks`),
and the last one that can be an answer counts. If nothing is marked, a display or a bold line that ends the text counts, or
the whole text if it is nothing but a value.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from offsft.verify import marks
from offsft.verify.boxed import Box, joined_boxes
from offsft.verify.sentence import LONGEST, Worth, statement_text, value_of_sentence, worth_of
from offsft.verify.thoughts import without_thoughts

TAIL_CHARACTERS = 20_000
"""The final answer is at the end of a response: only this much of it is searched."""
_SUPPOSED = re.compile(
    r"(?i:\b(?:if|whether|unless|suppose|supposing|assume|assuming|why|how|what|verify|check(?:ing)?)\s+(?:that\s+)?(?:the|my|this|our|your|an?)?\s*"
    r"(?:final|correct|right)?\s*)$"
)
_SUPPOSED_CHARACTERS = 40
_VALUE_ALONE = re.compile(r"\$?\s*(?:[A-Za-z]\s*=\s*)?(?=[-+$€£\\(\[{.\d−])(?:[^=<>\n?!:.]|\.(?!\s))*")
_LONGEST_VALUE = 60
_MOST_WORDS_OF_VALUE = 4
_WOULD_BE = re.compile(r"(?i:\bwould\s+be\b)")
_CONDITION = re.compile(r"(?i:\b(?:if|were|had)\b)[^.!?\n]*$")
_CONDITION_CHARACTERS = 200
_INTRODUCED = re.compile(
    r"(?P<text>\\text(?:bf|rm|it)?\{)?\s*(?i:(?:the\s+)?(?:final\s+|correct\s+)?answer)\s*(?:(?i:is)\b|[:=：])[:=\s]*(?P<closed>\})?\s*"
)
"""What a box may begin with before the answer: `\\text{The answer is 7}`, `\\text{Answer: }7`."""


class Candidate(NamedTuple):
    """A possible answer: its start in the text, the kind of its mark, and its worth."""

    start: int
    text: str
    where: str
    worth: Worth


def final_answer(response: str) -> str | None:
    """The answer that a response states, or None; a number that merely comes last is not an answer."""
    return located_answer(response)[0]


def located_answer(response: str) -> tuple[str | None, str]:
    """As `final_answer`, with its place.

    That is `box`, `statement`, `tag`, `field`, `display`, `bold line`, `whole response`, or empty.
    """
    found = candidates(response)
    best = max(found, key=lambda candidate: candidate.worth, default=None)
    if best is not None:
        return best.text, best.where
    said = without_thoughts(response)[-TAIL_CHARACTERS:]
    for candidate in _unmarked(said):
        return candidate.text, candidate.where
    return (said.strip().rstrip("."), "whole response") if _is_value_alone(said.strip()) else (None, "")


def candidates(response: str) -> list[Candidate]:
    """The candidates that are marked as an answer and can be one, from the last to the first."""
    tail = without_thoughts(response)[-TAIL_CHARACTERS:]
    boxes = joined_boxes(tail)
    found = [*_boxes(boxes), *_statements(tail, boxes), *_tags(tail), *_fields(tail)]
    return sorted((each for each in found if each.worth), key=lambda each: each.start, reverse=True)


def _boxes(boxes: list[Box]) -> Iterator[Candidate]:
    for box in boxes:
        text = statement_text(box.content, goes_on=False) if box.content[:2] == "**" else _bare(box.content)
        yield Candidate(box.start, text, "box", worth_of(text, "box"))


def _bare(content: str) -> str:
    """A box's content without the words that introduce the answer."""
    introduced = _INTRODUCED.match(content)
    if introduced is None:
        return content
    text = content[introduced.end() :].strip()
    return text.removesuffix("}").strip() if introduced["text"] and not introduced["closed"] else text


def _statements(tail: str, boxes: list[Box]) -> Iterator[Candidate]:
    introduced = [(box.start, box.end) for box in boxes if _INTRODUCED.match(box.content)]
    for form in marks.statement_forms(tail):
        for match in form.finditer(tail):
            group = str(match.lastgroup)
            start = match.start(group)
            if any(first <= start < end for first, end in introduced):
                continue  # the box has it
            text = statement_text(tail[start : start + LONGEST], goes_on=group not in ("marked", "hashed"))
            worth = worth_of(text, "statement")
            if worth and _is_supposed(tail, match):
                worth = Worth.PROSE
            yield Candidate(start, text, "statement", worth)


def _is_supposed(tail: str, match: re.Match[str]) -> bool:
    """Whether a statement is about another case: `whether the answer is 7`, `if he had two, the answer would be 7`."""
    start = match.start()
    if _SUPPOSED.search(tail, max(0, start - _SUPPOSED_CHARACTERS), start):
        return True
    return (
        _WOULD_BE.search(match[0]) is not None
        and _CONDITION.search(tail, max(0, start - _CONDITION_CHARACTERS), start) is not None
    )


def _tags(tail: str) -> Iterator[Candidate]:
    if "</" not in tail and "[/" not in tail and "<|end_of_" not in tail:
        return
    for match in marks.TAG_OPENING.finditer(tail):
        closing = f"[/{match['square']}]" if match["square"] else f"<|end_of_{match['special']}|>"
        closing = f"</{match['name']}>" if match["name"] else closing
        content, closed, _ = tail[match.end() : match.end() + 2 * LONGEST].partition(closing)
        if closed:
            # Before the marks inside it: a box or a statement there gives the answer more exactly.
            text = value_of_sentence(content.strip().strip("*$` ").rstrip("."))
            yield Candidate(match.start(), text, "tag", worth_of(text, "tag"))


def _fields(tail: str) -> Iterator[Candidate]:
    if 'nswer"' not in tail and "nswer'" not in tail:
        return
    for match in marks.JSON_FIELD.finditer(tail):
        text = (match["text"] or match["number"]).replace("\\\\", "\\").strip()
        yield Candidate(match.start(), text, "field", worth_of(text, "field"))


def _is_value_alone(text: str) -> bool:
    """Whether a response is nothing but a value, with a unit or a name at most: `18`, `x = 18`, `18 eggs`."""
    short = len(text) <= _LONGEST_VALUE and len(text.split()) <= _MOST_WORDS_OF_VALUE
    return short and _VALUE_ALONE.fullmatch(text) is not None and re.search(r"\d", text) is not None


def _unmarked(tail: str) -> Iterator[Candidate]:
    """A display, or a bold line, that ends the text and contains one line of mathematics."""
    for form, where in ((marks.DISPLAY_AT_END, "display"), (marks.BOLD_AT_END, "bold line")):
        match = form.search(tail.rstrip())
        text = match[str(match.lastgroup)].strip().rstrip(".,") if match else ""
        if text and len(text) <= LONGEST // 2 and "\\\\" not in text and re.search(r"[\d\\]", text):
            yield Candidate(0, text.strip(), where, Worth.VALUE)
