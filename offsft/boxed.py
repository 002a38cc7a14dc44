"""The boxed answer of a text, in linear time whatever the text holds."""

import re

_OPENING = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE_OR_ESCAPE = re.compile(r"\\.|[{}]", re.DOTALL)
_WORD = re.compile(r"[^\s${}]+")
_CONNECTIVE = re.compile(r"(?:[\s$]*(?:,|;|\b(?:and|or)\b|\\text\{\s*(?:and|or)\s*\}))+[\s$]*")
_LONGEST_CONNECTIVE = 40


def last_boxed(text: str) -> str | None:
    """Content of the last complete `\\boxed{...}` (balanced braces) or `\\boxed 7`, stripped; None where there is none."""
    boxes = _last_boxes(text, limit=1)
    return boxes[0][2] if boxes else None


def boxed_answer(text: str) -> str | None:
    """As `last_boxed`, with the boxes that the last one is joined to: `\\boxed{3} or \\boxed{4}` answers `3, 4`."""
    boxes = _last_boxes(text, limit=8)
    if not boxes:
        return None
    joined = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(boxes[:-1]), reversed(boxes), strict=False):
        if start - end > _LONGEST_CONNECTIVE or not _CONNECTIVE.fullmatch(text, end, start):
            break
        joined.insert(0, content)
    return ", ".join(dict.fromkeys(joined))


def _last_boxes(text: str, *, limit: int) -> list[tuple[int, int, str]]:
    """(start, end, content) of the last complete boxes, in order."""
    boxes: list[tuple[int, int, str]] = []
    end = len(text)
    for opening in reversed(list(_OPENING.finditer(text))):
        found = _content(text, opening.end(), end)
        if found is not None:
            boxes.insert(0, (opening.start(), found[0], found[1].strip()))
            if len(boxes) == limit:
                break
        # What follows this opening has been read; only what stands before it is not, so the walk stays linear.
        end = opening.start()
    return boxes


def _content(text: str, start: int, end: int) -> tuple[int, str] | None:
    """Where the box that opens at `start` ends, and what it holds; None if it does not end before `end`."""
    if not text.startswith("{", start):
        word = _WORD.match(text, start, end)
        return None if word is None else (word.end(), word[0].rstrip(".,;:"))
    depth = 0
    for mark in _BRACE_OR_ESCAPE.finditer(text, start, end):
        # An escaped brace is a character of the answer, as in a set or a case distinction.
        depth += {"{": 1, "}": -1}.get(mark[0], 0)
        if depth == 0 and mark[0] == "}":
            return mark.end(), text[start + 1 : mark.start()]
    return None
