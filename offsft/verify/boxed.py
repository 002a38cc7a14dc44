"""The boxed answer of a text, found in linear time for any text."""

import re
from typing import NamedTuple

_OPENING = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_WORD = re.compile(r"[^\s${}]+")
_TYPESETTING = re.compile(r"\\(?:q?quad(?![A-Za-z])|[ ,;:!()\[\]]|hspace\s*\{[^{}]*\})|[\s$*~&]|\\\\")
_WORDS = r"(?:and|or|und|oder|et|ou|y|o|和|或|\\text\{(?:and|or)\}|\\(?:land|lor|wedge|vee)|\\(?:mathrm|textrm)\{(?:and|or)\})"
_PART = r"[,;.]?(?:[Pp]art)?\(?(?:[b-h]|i[iv]|iii|vi{0,3})\)[:.]?"
_NAME = r"\\?[A-Za-z](?:_\{?\w+\}?)?(?:=|\\in)"
_BETWEEN = re.compile(rf"(?:(?:[,;、，；]|{_WORDS})+|(?P<part>{_PART}))(?P<name>{_NAME})?|(?P<alone>{_NAME})")
_SPACED = re.compile(r"\\q?quad(?![A-Za-z])")
_MINUS = re.compile(r"(?:=|\$|\\\(|\\\[)\s*[-−]\s*\Z")
_TERM = re.compile(r"[^-+±,=]+")
_LONGEST_BETWEEN = 60


class Box(NamedTuple):
    """One complete box, or several that belong together: its start and end in the text, and its content."""

    start: int
    end: int
    content: str


def last_boxed(text: str) -> str | None:
    """Content of the last complete `\\boxed{...}` (balanced braces) or `\\boxed 7`, stripped; None without one."""
    boxes = last_boxes(text, limit=1)
    return boxes[0].content if boxes else None


def boxed_answer(text: str) -> str | None:
    """As `last_boxed`, including the boxes joined to the last one: `\\boxed{3} or \\boxed{4}` answers `3, 4`."""
    boxes = joined_boxes(text)
    return boxes[-1].content if boxes else None


def joined_boxes(text: str, *, limit: int = 32) -> list[Box]:
    """The last boxes of a text in order; those that belong together are merged, their contents joined by commas.

    Boxes that belong together are separated by commas, "and", "or", the next value's name (`y =`) or its part (`(b)`).
    """
    groups: list[list[Box]] = []
    for box in last_boxes(text, limit=limit):
        if groups and (how := _joint(text, groups[-1][-1], box)):
            if how != "again" or box.content not in [each.content for each in groups[-1]]:
                groups[-1].append(box)
            continue
        groups.append([box])
    return [Box(group[0].start, group[-1].end, ", ".join(box.content for box in group)) for group in groups]


def last_boxes(text: str, *, limit: int) -> list[Box]:
    """The last complete boxes, in order; the inner one if they are nested."""
    boxes: list[Box] = []
    if "box" not in text:
        return boxes
    end = len(text)
    for opening in reversed(list(_OPENING.finditer(text))):
        found = _content(text, opening.end(), end)
        if found is not None:
            boxes.append(Box(opening.start(), found[0], _signed(text, opening.start(), found[1].strip())))
            if len(boxes) == limit:
                break
        # The text after this opening has been read; only the text before it remains, so the scan stays linear.
        end = opening.start()
    return boxes[::-1]


def _signed(text: str, start: int, content: str) -> str:
    """A box's content with the sign that stands before it in a formula: `x = -\\boxed{7}`."""
    if _MINUS.search(text, max(0, start - 20), start) is None or not content:
        return content
    return f"-{content}" if _TERM.fullmatch(content) else f"-({content})"


def _joint(text: str, first: Box, second: Box) -> str:
    """How two boxes are joined: `named` (separate values), `again` (may repeat one value), or empty if they are not."""
    raw = text[first.end : second.start]
    if len(raw) > _LONGEST_BETWEEN:
        return ""
    # `\\text{ and }` loses its spaces here, and so does `and y =`.
    between = _TYPESETTING.sub("", raw)
    match = _BETWEEN.fullmatch(between)
    if match is None or match["alone"]:
        spaced = _SPACED.search(raw) and (match or not between)
        return ("named" if match else "again") if spaced else ""
    return "named" if match["name"] or match["part"] else "again"


def _content(text: str, start: int, end: int) -> tuple[int, str] | None:
    """The end and content of the box that opens at `start`; None if it does not end before `end`."""
    if not text.startswith("{", start):
        word = _WORD.match(text, start, end)
        return None if word is None else (word.end(), word[0].rstrip(".,;:"))
    depth = 0
    for mark in _BRACE_OR_ESCAPE.finditer(text, start, end):
        # An escaped brace is part of the answer, as in a set or a case distinction.
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0 and mark[0] == "}":
            return mark.end(), text[start + 1 : mark.start()]
    return None
