"""Splits answers into their parts: several values, tuples, intervals, sets, unions, matrices and plus-minus."""

import re
from dataclasses import dataclass

_MATRIX = re.compile(
    r"\\begin\{(?P<kind>[pbvBV]?matrix|array)\}(?:\{[lcr|]*\})?(?P<body>.*)\\end\{(?P=kind)\}", re.DOTALL
)
_JOINT = re.compile(
    r"\s*(?:(?:;|,)?\s*(?:\\text\{\s*,?\s*(?:and|or|,)\s*\}|\b(?:and|or)\b|\\lor(?![a-z])|\\land(?![a-z]))|;|,)\s*"
)
_NAME = re.compile(r"(?P<name>\\?[A-Za-z][A-Za-z_']*(?:_\{?\w+\}?)?(?:\s*\([a-z, ]{1,20}\))?)\s*(?P<sign>=|\\in\b)\s*")
_SPACING = re.compile(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])\s*|\\[!,;:]|\\quad|~")
_LEFT_ANGLE, _RIGHT_ANGLE = re.compile(r"\\langle(?![A-Za-z])\s*"), re.compile(r"\s*\\rangle(?![A-Za-z])")
_OPENING, _CLOSING = "([{", ")]}"
_MOST_PARTS = 64


@dataclass(frozen=True, slots=True)
class AnswerParts:
    """An answer's parts; `opening` and `closing` are brackets (`(`, `[`, `\\{`, `matrix`), empty for a plain list."""

    opening: str
    closing: str
    items: list[str]

    @property
    def ordered(self) -> bool:
        """Whether the order of the parts matters: not in a set, a union or a plain list."""
        return self.opening not in ("", "\\{", "\\cup")


def parts(text: str) -> AnswerParts | None:
    """The parts of an answer, or None if it is a single value; a thousands separator does not split it."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "$" and "$" not in text[1:-1]:
        text = text[1:-1]
    # `32,\! 348` and `1{,}200` are numbers, and so is `1,200`.
    if re.fullmatch(r"\\?\$?\s*[-+]?\\?\$?\s*\d{1,3}(?:(?:,(?:\\!)?\s?|\{,\}|\\,)\d{3})+(?:\.\d+)?[^,]*", text):
        return None
    text = _SPACING.sub(" ", text.replace("$", " ")).strip()
    text = _RIGHT_ANGLE.sub(")", _LEFT_ANGLE.sub("(", text))
    matrix = _MATRIX.fullmatch(text)
    if matrix is not None:
        rows = [row for row in re.split(r"\\\\", matrix["body"]) if row.strip()]
        items = [cell.strip() for row in rows for cell in row.split("&")]
        return AnswerParts("matrix", str(len(rows)), items) if len(items) <= _MOST_PARTS else None
    unions = split_outside_brackets(text, re.compile(r"\s*(?:\\cup(?![A-Za-z])|∪|\bU\b)\s*"))
    if len(unions) > 1:
        return AnswerParts("\\cup", "", unions)
    listed = split_outside_brackets(text, _JOINT)
    if len(listed) > 1:
        return AnswerParts("", "", [each for item in listed for each in _plus_minus(item)])
    both = _plus_minus(text)
    if len(both) == 2:
        return AnswerParts("", "", both)
    return _read_brackets(text)


def without_name(found: str, reference: str) -> tuple[str, str]:
    """Both texts without a leading `x =` or `x \\in`, if only one has it or both have the same."""
    left, right = _NAME.match(found.strip("$ ")), _NAME.match(reference.strip("$ "))
    if (left and right and left["name"] != right["name"]) or not (left or right):
        return found, reference
    bare = [text.strip("$ ")[match.end() :] if match else text for text, match in ((found, left), (reference, right))]
    # The name stays if an equation or a single value follows, which mathematics compares better.
    return (bare[0], bare[1]) if all(parts(text) is not None for text in bare) else (found, reference)


def _read_brackets(text: str) -> AnswerParts | None:
    escaped = text.startswith("\\{") and text.endswith("\\}")
    braced = text.startswith("{") and text.endswith("}") and "," in text
    if escaped or braced:
        opening, inner, closing = "\\{", text[1 + escaped : -1 - escaped], "\\}"
    elif text[:1] in ("(", "[") and text[-1:] in (")", "]"):
        opening, inner, closing = text[0], text[1:-1], text[-1]
    else:
        return None
    items = split_outside_brackets(inner, re.compile(r"\s*[,;]\s*"))
    if len(items) < 2 and not escaped:
        return None
    return AnswerParts(opening, closing, items)


def _plus_minus(text: str) -> list[str]:
    if len(re.findall(r"\\pm(?![A-Za-z])|±", text)) != 1:
        return [text]
    return [re.sub(r"\\pm(?![A-Za-z])|±", sign, text) for sign in ("+", "-")]


def split_outside_brackets(text: str, joint: re.Pattern[str]) -> list[str]:
    """The items between joints outside brackets; one item if brackets do not match or there are too many items."""
    # Half-open intervals open and close with different brackets: depth is counted for all kinds together.
    depth, start, items, position = 0, 0, [], 0
    while position < len(text):
        mark = text[position]
        match = joint.match(text, position) if depth == 0 else None
        if match is not None and match.end() > position:
            items.append(text[start : match.start()])
            start = position = match.end()
            continue
        depth += (mark in _OPENING) - (mark in _CLOSING)
        if depth < 0:
            return [text]
        position += 1
    items.append(text[start:])
    items = [item.strip() for item in items]
    if depth or len(items) > _MOST_PARTS or not all(items):
        return [text]
    return items
