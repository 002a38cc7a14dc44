"""Reads a statement: the end of its sentence, the value in it, and whether that can be an answer at all."""

import re
from enum import IntEnum

LONGEST = 600
"""Maximum characters of a statement that are read."""

_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|[。！？।]|,?\s+(?:and\s+)?(?:which|because|since|so|as|meaning)\b")
_BOLD = re.compile(r"(?<=\S)\*\*(?=[\s.,;:)]|$)|(?:(?<=\s)|^)\*\*(?=\S)")
_END_OF_TEXT = re.compile(
    r"</?(?:b|strong|em|i|u|p|br|s|answer|final_?answer)[ ]?/?>|<\|[^|<>\n]{1,40}\|>", re.IGNORECASE
)
_POLITE_ENDING = re.compile(r"\s*(?:です|である|となります|になります|だ|입니다|이다|है|হয়)[.。।]?$")
_NOT_ANOTHER = re.compile(r"(?<=\w|[)}$]),\s+(?:and\s+)?not\s+[^,]+$")
_REMARK = re.compile(
    r"\s*\((?:or|i\.e\.|which|that is|about|approximately|approx|≈|since|as|because|rounded|see)\b[^()]*\)$"
)

_QUALIFIERS = r"(?:(?:about|approximately|roughly|exactly|only|just|therefore|thus|still|equal[ ]to|equals|a[ ]total[ ]of|the[ ]number|given[ ]by)\s+)*"
_VALUE = r"(?P<value>(?:[-+~≈]?[$€£\\]?\s?[-+]?\\?\$?[\d.\\({\[√π∞]|[A-Za-z]\w?\s*=|[a-z](?:\^|\b(?=\s*[-+*/^]))).*)"
_VERBS = (
    r"(?:is|are|was|were|equals?|has|have|had|be|becomes?|needs?|takes?|took|costs?|makes?|made|earns?|earned|gets?|got|pays?|paid|saves?|saved"
    r"|spends?|spent|gives?|yields?|contains?|sold|sells?|ate|eats?|bought|buys?|reads?|ran|runs?|scored|left|weighs?|covers?|remain|lasts?)"
)
_WITH_VALUE = re.compile(rf"[A-Z][a-z]*(?:'s)?\s[^\\=<>]*\b{_VERBS}\s+{_QUALIFIERS}{_VALUE}", re.DOTALL)
_WITH_NAME = re.compile(r"The\s[^\\=<>\d]*\b(?:is|was|are|were)\s+(?P<value>(?!not\b|in\b)(?:[^\s,;]+\s?){1,4})")

_DRESS = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf)?|mathrm|mathbf|mbox)(?![A-Za-z])|\\[\[\]()!,;: ]|\\q?quad|[\s${}*_.,;:`~\"'|()\[\]]"
)
_PLACEHOLDER = re.compile(
    r"(?i:(?:your|the|my|insert|correct|numerical)?(?:final|correct)?(?:answer|result)(?:here)?|your(?:number|solution|value|expression|choice|letter|option)"
    r"|answer(?:value|number|letter)|\?+|…+|-+|\\[lcdv]?dots|#+|<[^<>]*>|\\boxed|\\)"
)
_CHATTER = re.compile(
    r"(?i:(?:not\s+|also\s+|very\s+|indeed\s+)?(?:clear|correct|incorrect|right|wrong|unique|obvious|reasonable|valid|consistent|verified|confirmed|final|complete"
    r"|simple|straightforward|helpful|above|below|here|known|unknown|found|given|shown|see|provided|acceptable|ready|done|as\s+follows|the\s+following|the\s+same)\b.*)",
    re.DOTALL,
)
_PROSE_BEGINS = re.compile(
    r"(?:[a-z]{3,}(?=[\s.,;!']|$)|(?:in|as|of|at|on|by|to|an?|it|is|so|my|we|up|if)(?=\s)).*", re.DOTALL
)
_MAY_BEGIN = re.compile(
    r"(?i:yes|no|true|false|none|never|always|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    r"|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|half|about|approximately|roughly|exactly|at\s+(?:least|most)"
    r"|more|less|greater|fewer|between|all|both|either|sin|cos|tan|cot|sec|csc|log|sqrt|exp|arc\w+|infinity|infinite|option|choice|odd|even)\b"
)
_MATHEMATICS = re.compile(r"[\d=<>^√π∞≤≥]|\\(?!text|mathrm|mbox)[a-zA-Z]")
_MOST_WORDS = 4


class Worth(IntEnum):
    """The worth of a candidate: one of higher worth takes precedence over all of lower worth."""

    NOTHING = 0
    """Not an answer: an empty box, `...`, "your answer"."""
    PROSE = 1
    """Words that may be an answer, or only mention one ("clear", "the number of apples")."""
    VALUE = 2


def statement_text(text: str, *, goes_on: bool) -> str:
    """The answer in a statement's text, which may go on after it; for a sentence (`The speed is 5`) its final value."""
    text = _END_OF_TEXT.sub("", text[:LONGEST]).lstrip("*_ \t")
    for opening, closing in (("\\[", "\\]"), ("$$", "$$")):
        if text.startswith(opening):
            return text[2:].partition(closing)[0].strip().rstrip(".,;: ")
    text = text.partition("\n")[0].strip("*$` \t")
    if goes_on:
        text = _NOT_ANOTHER.sub("", _SENTENCE_END.split(text, maxsplit=1)[0])
    text = _POLITE_ENDING.sub("", _BOLD.sub("", text)).strip("*$` \t").rstrip(".,;:*").strip()
    return value_of_sentence(_REMARK.sub("", text))


def value_of_sentence(text: str) -> str:
    """The value at the end of a sentence; the text itself if it is not a sentence."""
    match = _WITH_VALUE.fullmatch(text) or _WITH_NAME.fullmatch(text)
    return match["value"].strip().strip("*$` ").rstrip(".,;:") or text if match else text


def worth_of(text: str, where: str) -> Worth:
    """The worth of a candidate; any content of a box or a tag is a value, unless empty or a placeholder."""
    bare = _DRESS.sub("", text)
    if not bare or _PLACEHOLDER.fullmatch(bare) or (where != "box" and "\\boxed" in text):
        return Worth.NOTHING
    if where in ("box", "tag", "field"):
        return Worth.VALUE
    if re.match(r"(?i:not)\b", text) or _CHATTER.fullmatch(text):
        return Worth.PROSE
    if _MAY_BEGIN.match(text):
        return Worth.VALUE
    if _PROSE_BEGINS.fullmatch(text):
        return Worth.PROSE
    return Worth.VALUE if _MATHEMATICS.search(text) or len(text.split()) <= _MOST_WORDS else Worth.PROSE
