"""Labels of choices in front of answers, such as `(C) 12`, as competition problems and their solutions write them."""

import re
from typing import NamedTuple

_LABEL = re.compile(
    r"(?:\\text\{)?\s*(?:\((?P<round>[A-J])\)|(?P<plain>[A-J])[).:])(?=[\s}\\])\s*\}?[\s:.]*+(?P<text>(?![+*/^=_]|-\s).*)",
    re.DOTALL,
)
_BARE = re.compile(r"\s*(?:\\text\{)?\s*(?:(?i:option|choice)\s+)?\(?(?P<letter>[A-J])\)?[.\s]*\}?\s*")
_ANOTHER = re.compile(r"\([A-J]\)|(?:^|[,;&]|\b(?:and|or)\b)[\s}]*(?:\\text\{)?\s*\(?[A-J]\b(?![\w^_(=+*/-])")
"""Another letter beside the first: a list of choices, not a choice with its text."""


class Labelled(NamedTuple):
    """The letter of a choice, A to J, and the text behind it.

    `certain` is False where the letter could be an initial: `C. 12`, not `(C) 12`.
    """

    letter: str
    text: str
    certain: bool


def labelled(answer: str) -> Labelled | None:
    """The label and text of an answer in plain notation, or None if no label or more than one stands there."""
    match = _LABEL.fullmatch(answer.strip())
    if match is None or not match["text"].strip(" }") or _ANOTHER.search(match["text"]):
        return None
    text = match["text"].strip()
    # The brace that closes a \text{ around both: `\text{C: Paris}`.
    if text.count("}") > text.count("{"):
        text = text.removesuffix("}").strip()
    return Labelled(match["round"] or match["plain"], text, match["round"] is not None)


def bare_letter(answer: str) -> str | None:
    """The letter that an answer is, such as `C`, `(C)` or `option C`."""
    match = _BARE.fullmatch(answer)
    return match["letter"] if match else None
