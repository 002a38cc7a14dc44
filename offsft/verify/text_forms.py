"""An answer's text in any typesetting: as a pattern to search for, and in one bare form to compare."""

import re

from offsft.verify.notation import plain

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|\d+|\S")
_FORMS = {
    "\\frac": r"\\[dtc]?frac", "\\sqrt": r"(?:\\sqrt|√|sqrt)", "\\pi": r"(?:\\pi|π|pi)", "\\infty": r"(?:\\infty|∞|infinity)",
    "\\cup": r"(?:\\cup|∪)", "\\cap": r"(?:\\cap|∩)", "\\le": r"(?:\\leq?(?:slant)?|≤|<=)", "\\ge": r"(?:\\geq?(?:slant)?|≥|>=)",
    "\\cdot": r"(?:\\cdot|·|\*)?", "\\times": r"(?:\\times|×|\*)", "\\text": r"(?:\\(?:text|mathrm|textbf|mbox))?", "{": r"\{?", "}": r"\}?", "(": r"(?:\\left\s*)?\(",
    ")": r"(?:\\right\s*)?\)", "[": r"(?:\\left\s*)?\[", "]": r"(?:\\right\s*)?\]", "-": "[-−–]", "*": r"(?:\\cdot|·|\*|\\times|×)?",
    "\\%": r"(?:\\?%|percent)", "\\{": r"(?:\\left\s*)?(?:\\\{|\\lbrace)", "\\}": r"(?:\\right\s*)?(?:\\\}|\\rbrace)", "$": r"\\?\$?", "\\$": r"\\?\$?",
}  # fmt: skip
_BETWEEN = r"(?:\s|\$|\\[,;!: ]|~)*"
_MOST_TOKENS = 80
_BARE = re.compile(r"\\(?:left|right|text|mathrm|cdot|times|,|;|!|:| )|[\s${}()*~]")
_ROOT = re.compile(r"\\sqrt\s*(?:\{([^{}]*)\})")
_FRACTION = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))")
_LETTER = r"(?:\b(?:option|choice|letter|answer)\s+\(?{0}\b\)?|\({0}\)|\b{0}[).:](?=\s|$)|\\text(?:bf)?\{{\(?{0}\)?\}}|(?<![A-Za-z\\]){0}(?![A-Za-z]))"


def pattern_of(answer: str) -> re.Pattern[str] | None:
    """A pattern of an answer's text however it is spaced and typeset; None for an empty or a very long one."""
    answer = plain(answer).strip("$ .")
    tokens: list[str] = _TOKEN.findall(answer)
    if not tokens or len(tokens) > _MOST_TOKENS or not any(token[-1].isalnum() for token in tokens):
        return None
    if len(answer) == 1 and answer.isalpha():
        return re.compile(_LETTER.format(re.escape(answer.upper())))
    pieces = [_FORMS[token] if token in _FORMS else re.escape(token) for token in tokens]
    before = r"(?<![A-Za-z0-9.])" if tokens[0][0].isalnum() else ""
    after = r"(?![A-Za-z0-9])(?!\.\d)" if tokens[-1][-1].isalnum() else ""
    return re.compile(before + _BETWEEN.join(pieces) + after, re.IGNORECASE)


def canonical(text: str) -> str:
    """The text without spaces, grouping and typesetting: `\\frac{\\sqrt{3}}{2}` and `\\sqrt 3/2` are one."""
    text = _ROOT.sub(r"\\sqrt(\1)", plain(text))
    while (shorter := _FRACTION.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", text)) != text:
        text = shorter
    return _BARE.sub("", text).lower().rstrip(".,;:")
