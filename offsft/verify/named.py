"""Parses residues, and answers with named parts.

Examples: `x = 1, y = 2`, `\\begin{cases} x = 1 \\\\ y = 2 \\end{cases}`, `(x, y) = (1, 2)`.
"""

import re
from dataclasses import dataclass

from offsft.verify.structure import parts, split_outside_brackets

_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\{(?:cases|aligned|align\*?|gathered|array|split)\}(?:\{[lcr|]*\})?|\\left\\\{|\\right\."
)
_ROW = re.compile(r"[,;.]?\s*\\\\(?:\[\d+pt\])?\s*")
_JOINT = re.compile(
    r"\s*(?:\\text\{\s*(?:and|or|,)\s*\}|\b(?:and|or)\b|;|,|\\\\(?:\[\d+pt\])?|\\land(?![a-z])|\\lor(?![a-z])|\\wedge(?![a-z])|\\q?quad)\s*"
)
_NAMED = re.compile(
    r"&?\s*(?:\\text\{)?(?P<name>\\?[A-Za-z]\w*(?:_\{?\w+\}?)?'*(?:\([a-z0-9]\))?)\}?\s*&?=\s*&?\s*(?P<value>[^=<>]+)"
)
_INDEXED = re.compile(r"(?P<letter>\\?[A-Za-z]+?)_?\{?\d+\}?")
_MODULUS = re.compile(
    r"(?:(?P<name>[A-Za-z])\s*(?:\\equiv|=)\s*)?(?P<value>.+?)\s*(?:,\s*)?(?:\\pmod\s*(?:\{(?P<braced>[^{}]+)\}|(?P<digit>\d))|\\[bp]?mod\s*\{?(?P<plain>\d+)\}?"
    r"|\(?\s*(?:\\text\{\s*)?mod(?:ulo)?\s*\}?\s*(?P<word>\d+)\s*\}?\s*\)?)"
)


@dataclass(frozen=True, slots=True)
class NamedParts:
    """Names and values in written order."""

    names: list[str]
    values: list[str]

    @property
    def are_alternatives(self) -> bool:
        """Whether the values are of one unknown (`x = 1 or x = 2`, `x_1 = 1, x_2 = 2`), so order is irrelevant."""
        letters = {match["letter"] if (match := _INDEXED.fullmatch(name)) else name for name in self.names}
        return len(letters) == 1

    @property
    def are_distinct(self) -> bool:
        """Whether all names differ."""
        return len(set(self.names)) == len(self.names)


def named_parts(text: str) -> NamedParts | None:
    """Two or more values with their names; None if one has no name."""
    if "=" not in text:
        return None
    text = _ENVIRONMENT.sub(" ", text.replace("$", " ")).strip()
    text = re.sub(r"^\\\{\s*(?!.*\\\}\s*$)", "", text)
    tuples = re.fullmatch(r"\((?P<names>[^()=]+)\)\s*=\s*(?P<values>\(.+\))", text, re.DOTALL)
    if tuples is not None:
        names, values = [name.strip() for name in tuples["names"].split(",")], parts(tuples["values"])
        same = values is not None and values.opening == "(" and len(values.items) == len(names) > 1
        return (
            NamedParts(names, values.items)
            if same and values and all(re.fullmatch(r"\\?[A-Za-z]\w*", name) for name in names)
            else None
        )
    items = split_outside_brackets(_ROW.sub(" , ", text.strip("\\ ")), _JOINT)
    items = [item.strip(" &,.") for item in items if item.strip(" &,.")]
    found = [_NAMED.fullmatch(item) for item in items]
    if len(found) < 2 or not all(found):
        return None
    pairs = [(match["name"], match["value"].strip()) for match in found if match]
    return NamedParts([name for name, _ in pairs], [value for _, value in pairs])


def residue(text: str) -> tuple[str, str] | None:
    """Value and modulus of `x \\equiv 3 \\pmod{5}`, `3 \\bmod 5`, `3 (mod 5)`; None for other text."""
    if "mod" not in text:
        return None
    match = _MODULUS.fullmatch(text.strip("$ "))
    if match is None:
        return None
    return match["value"].strip(), match["braced"] or match["digit"] or match["plain"] or match["word"]
