"""Finds the equations between numbers in a text: `5 boxes * 3 = 15 pens` has the sides `5*3` and `15`.

A side is the longest run of numbers and operators that touches the equals sign; units behind numbers are put aside. What
could mean something else (a variable, a function, a mixed number, a word such as "half" before it) has no sides.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from offsft.verify.units import is_known

_LATEX = (
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\boxed\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[dt]frac\b"), r"\\frac"),
    (re.compile(r"\\(?:left|right|quad|qquad|displaystyle)(?![A-Za-z])|\\[,;:! ]"), " "),
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])|[×·⋅∗]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|÷"), "/"),
    (re.compile(r"\\(?:approx|simeq)(?![A-Za-z])"), "≈"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\[()\[\]]|\\\$|[$€£₹¥]|&"), " "),
    (re.compile(r"\*\*(?=\S)|(?<=\S)\*\*|__|`"), ""),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"²"), "^2"),
    (re.compile(r"³"), "^3"),
    # A line that begins with the equals sign goes on; a mark of a list is no number and no minus.
    (re.compile(r"(?:\\\\)?(?<![ \t])[ \t]*\n[ \t]*(?=[=≈])"), " "),
    (re.compile(r"(?m)^[ \t]*(?:[-*•+]|\(?\d{1,2}[.)])[ \t]+"), ""),
    # In `3 x 4` and `3x4` it is a sign; elsewhere x is a variable.
    (re.compile(r"(?<=[\d%)])[ \t]*[xX][ \t]*(?=[\d(])"), "*"),
    (re.compile(r"(?<=[A-Za-z])[ \t]+[xX][ \t]+(?=\d)"), " * "),
)  # fmt: skip
_TOKEN = re.compile(
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<percent>[ \t]?%)?"
    r"|(?P<fraction>\\frac\s*\{[\d.,]+\}\s*\{[\d.,]+\})"
    r"|(?P<sign>[-+*/^()!])|(?P<equals>[=≈])|(?P<word>[^\W\d_](?:[\w'’]|-(?=[a-z]))*)|(?P<space>[ \t]+)|(?P<other>.)",
    re.DOTALL,
)
_CHANGES_VALUE = frozenset(
    word
    for words in (
        "of half twice double triple thrice plus minus times less more than divided multiplied by subtract subtracted add",
        "added over into and dozen hundred thousand million billion trillion pair pairs gross score quarter quarters third",
        "thirds percent k log ln sin cos tan cot sec csc sqrt exp max min gcd lcm mod modulo root squared cubed floor ceil",
        "abs remainder",
    )
    for word in words.split()
)
"""Words that make an expression beside them mean something else than its signs say."""
_NO_UNIT = frozenset(
    word
    for words in (
        "is are was were be because so then if has have had gives give makes make costs cost equals equal means since that",
        "which who would will can should for as when while after before but or with from at in on to among between",
    )
    for word in words.split()
)
"""Words that are no unit: what stands before them belongs to another expression."""
_UNCERTAIN = re.compile(r"^[+*/]|/[\d.,]+/|(?<![\d.,])0\d")
"""What begins with an operator goes on from something else; `6 / 1/3` may be a sixth or a fraction; `0730` is a time."""
_MOST_UNIT_WORDS = 3
_LONGEST_SIDE = 120
"""Most tokens of a side; longer ones are not judged."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of an equation: its expression without units, the units in it, and whether it has an operator."""

    text: str
    units: frozenset[str]
    operators: str
    leading: str
    """The first number, as written."""


@dataclass(frozen=True, slots=True)
class Equation:
    """An equals sign between two things; a side is None if it is no expression of numbers that can be read."""

    text: str
    left: Side | None
    right: Side | None
    approximate: bool


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def equations(text: str) -> Iterator[Equation]:
    """The equations of a text that have a number next to their equals sign on both sides, in order."""
    if "=" not in text and "≈" not in text and "\\approx" not in text:
        return
    for form, plain in _LATEX:
        text = form.sub(plain, text)
    for line in text.split("\n"):
        if "=" in line or "≈" in line:
            yield from _of_line(line)


def _of_line(line: str) -> Iterator[Equation]:
    tokens = [_Token(str(m.lastgroup), m[0], m.start(), m.end()) for m in _TOKEN.finditer(line)]
    # `percent` is a group within the number's match.
    tokens = [_Token("number", t.text, t.start, t.end) if t.kind == "percent" else t for t in tokens]
    tokens = [token for token in tokens if token.kind != "space"]
    for place, token in enumerate(tokens):
        if token.kind != "equals" or _beside(tokens, place, -1) == "equals" or _beside(tokens, place, 1) == "equals":
            continue
        before, after = _before(tokens, place, line), _after(tokens, place, line)
        if before is None or after is None:
            continue
        start, left = before
        end, right = after
        yield Equation(line[start:end].strip(), left, right, token.text == "≈")


def _beside(tokens: list[_Token], place: int, step: int) -> str:
    return tokens[place + step].kind if 0 <= place + step < len(tokens) else ""


def _before(tokens: list[_Token], place: int, line: str) -> tuple[int, Side | None] | None:
    """Start and reading of the side before an equals sign; None if no number belongs to it."""
    first, reached = place, False
    while first > 0 and place - first < _LONGEST_SIDE:
        token = tokens[first - 1]
        behind = tokens[first] if first < place else None
        if token.kind in ("number", "fraction"):
            if behind is not None and behind.kind in ("number", "fraction"):
                break
            reached = True
        elif token.kind == "word":
            # A word is a unit if a number stands before it, or a word that follows one.
            if token.text.lower() in _NO_UNIT or not _follows_number(tokens, first - 1):
                break
            if behind is not None and behind.kind in ("number", "fraction"):
                break
            if behind is not None and behind.text == "(":
                break
        elif token.kind != "sign":
            break
        first -= 1
    if not reached:
        return None
    found = tokens[first:place]
    preceding = tokens[first - 1] if first else None
    return found[0].start, _side(found, preceding, None, line)


def _follows_number(tokens: list[_Token], place: int) -> bool:
    """Whether only words and per-signs stand between the word at `place` and a number before it."""
    for back in range(place - 1, max(-1, place - 1 - _MOST_UNIT_WORDS), -1):
        if tokens[back].kind in ("number", "fraction"):
            return True
        if tokens[back].kind != "word" and tokens[back].text not in ("/", "^"):
            return False
    return False


def _after(tokens: list[_Token], place: int, line: str) -> tuple[int, Side | None] | None:
    """End and reading of the side behind an equals sign; None if it does not begin with a number."""
    last, reached = place + 1, False
    while last < len(tokens) and last - place < _LONGEST_SIDE:
        token, ahead = tokens[last], tokens[last - 1]
        if token.kind in ("number", "fraction"):
            if reached and ahead.kind in ("number", "fraction", "word"):
                break
            reached = True
        elif token.kind == "word":
            if not reached or token.text.lower() in _NO_UNIT or not _follows_number(tokens, last):
                break
        elif token.kind != "sign" or (token.text == "(" and _beside(tokens, last, 1) == "word"):
            break
        last += 1
    if not reached:
        return None
    found = tokens[place + 1 : last]
    following = tokens[last] if last < len(tokens) else None
    # The words behind the last number may begin the rest of the sentence; a sign or bracket before them does not count.
    while found and found[-1].kind == "sign" and found[-1].text in "(-":
        following = found.pop()
    return found[-1].end, _side(found, None, following, line)


def _side(found: list[_Token], preceding: _Token | None, following: _Token | None, line: str) -> Side | None:
    """The expression of a side's tokens; None if what is in or beside it may change its value."""
    if found[0].kind == "word" or (preceding is not None and _continues_before(preceding, found[0])):
        return None
    if following is not None and _continues_behind(following, found[-1], line):
        return None
    text, units, operators, leading, words = "", set(), "", "", 0
    for place, token in enumerate(found):
        if token.kind == "word":
            words += 1
            word = token.text.lower()
            previous = found[place - 1]
            attached = previous.end == token.start and previous.kind in ("number", "fraction")
            if word in _CHANGES_VALUE or words > _MOST_UNIT_WORDS or len(word) == 1:
                return None  # a single letter is more often a variable than a unit
            if attached and not is_known(token.text):
                return None  # `2ab` is a product
            units.add(word)
            continue
        if words and token.text in ("/", "^") and place + 1 < len(found):
            if token.text == "/" and found[place + 1].kind == "word":
                continue  # `5 dollars / hour`
            if token.text == "^":
                return None  # `12 m^2`
        if words and token.text == "(":
            return None
        words = 0
        if token.kind == "sign":
            operators += token.text
            text += token.text
        elif token.text.endswith("%"):
            leading = leading or token.text
            units.add("%")
            text += "(" + token.text.rstrip("% \t") + "/100)"
        else:
            leading = leading or token.text
            text += token.text
    if _UNCERTAIN.search(text):
        return None
    return Side(text, frozenset(units), re.sub(r"[()]", "", operators), leading)


def _continues_before(preceding: _Token, first: _Token) -> bool:
    """Whether what precedes a side belongs to it: a function, a variable, a digit group, an operator of words."""
    if preceding.kind in ("number", "fraction", "sign"):
        return True
    if first.text in "+-" and preceding.kind != "equals" and preceding.text not in ":([{":
        return True
    if preceding.kind == "word":
        attached = preceding.end == first.start
        return attached or preceding.text.lower() in _CHANGES_VALUE - {"and", "than", "add", "by"}
    return preceding.kind == "other" and preceding.end == first.start and preceding.text not in "\"'“”‘’{[|>"


def _continues_behind(following: _Token, last: _Token, line: str) -> bool:
    """Whether what follows a side belongs to it: a factor, an exponent, a number, `mod`."""
    if following.kind in ("number", "fraction"):
        return True
    if following.text == "(":
        rest = line[following.end : following.end + 6].lstrip().lower()
        return rest.startswith(("mod", "-")) or rest[:1].isdigit()
    if following.kind == "word":
        return following.text.lower() in _CHANGES_VALUE - {"and", "of", "more", "less", "by", "than"}
    if following.kind == "other":
        attached = following.start == last.end
        return (attached and following.text not in ".,;:!?)]}\"'“”‘’…|<\\") or following.text in "\\√≡"
    return False
