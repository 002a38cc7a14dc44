"""Finds where a worked solution states its final answer, so that it can be shown without.

Three kinds of mention count: what is marked as an answer (`offsft.verify.marks`), numbers of the answer's value in any
notation, and the answer's text in any typesetting. A value that the problem itself gives is a mention only where the
solution states it as a result (`= 5`, "there are 5 left") or later: elsewhere it is a step's input, and a hole there
would tell the answer, since the problem has the number.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from offsft.records import Problem
from offsft.verify import marks
from offsft.verify.boxed import last_boxes
from offsft.verify.named import named_parts
from offsft.verify.notation import plain
from offsft.verify.number_forms import FRACTION, HUNDREDTH, IN_WORDS, SCALE, are_same, numerals, value_of
from offsft.verify.quantity import Number, read
from offsft.verify.sentence import LONGEST, Worth, statement_text, worth_of
from offsft.verify.structure import parts
from offsft.verify.text_forms import canonical, pattern_of
from offsft.verify.units import number_in_words

HIDDEN = "[...]"
"""Stands in the place of each mention."""

_ENOUGH_LETTERS = 8
"""Letters that a solution without a number needs, apart from the answer, to say anything about the way to it."""
_LARGEST_COMMON_WORD = 10
"""Number words up to this one have other uses ("one of them"), so alone they are no mention."""

_BEFORE_RESULT = re.compile(
    r"(?:[=≈≃→⇒]|\\(?:approx|simeq|to|Rightarrow|implies|equiv|in|le|ge|leq|geq)(?![A-Za-z])"
    r"|\b(?:is|are|was|were|be|equals?|equal\s+to|gives?|gets?|got|have|has|had|makes?|leaves?|yields?|obtain|becomes?|costs?|pays?|earns?|need|needs"
    r"|total(?:\s+of)?|sum\s+of|number\s+of|exactly|only|about|approximately|roughly|just|still|therefore|thus|hence|so|namely|choose|option|choice))"
    r"(?:[\s*_~$({\[]|\\(?:text|mathrm|mathbf|textbf)\{|\\[\[(,;!: ]|US|[-+−±]|[€£¥₹]|\\\$|Rs\.?)*\Z",
    re.IGNORECASE,
)
_CONTEXT = 60
_ENUMERATED = re.compile(
    r"(?:(?:^|\n)[\s*_#>-]*\(?|\b(?:step|case|part|equation|eq\.|figure|question|problem|method|example|stage|phase|theorem|lemma|line|day|week|round)\s*[#(]?\s*)\Z",
    re.IGNORECASE,
)
_AFTER_ENUMERATED = re.compile(r"[.):]\)?[*_]*[ \t]+\S|:?[ \t]*\*\*")
_RAISED = re.compile(r"[\^_]\s*\{?\s*[-+−]?\Z")
_COEFFICIENT = re.compile(
    r"\s*\\(?:pi|sqrt|frac|dfrac|tfrac|sin|cos|tan|log|ln|theta|alpha|beta)\b|[a-fijknopqrtuvwxyz](?![A-Za-z])|\^"
)
_GOES_ON = re.compile(r"\s*(?:[-+*/×÷·−]|\\(?:times|cdot|div|pm))\s*[\d\\(A-Za-z]")
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?=\s*[AaPp])")
_ROUNDED = re.compile(r"(?:≈|\\approx|\b(?:about|approximately|roughly))[\s$(]*(?P<value>-?\d+\.\d+)")
_POWER = re.compile(r"[!^]")
_BORDER_OF_TERM = re.compile(r"\$+|\\[\[\]()]|&?=|≈|\\approx|\n|\\\\|[.;,](?=\s|\$|$)")
_RESULT_SIGN = re.compile(r"=|≈|\\approx|\\in(?![a-z])|∈|\\(?:Rightarrow|implies)")
_END_OF_RESULT = re.compile(
    r"\$|\\\)|\\\]|\\end|\\\\|\n|[.;!?](?:\s|$)|=|≈|,\s|\\approx|\\text\b|\s(?:and|so|or|which|because)\s"
)


class Span(NamedTuple):
    """A mention's place in the text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Sought:
    """What counts as the answer: its numbers and texts, and those among them that the problem has as well."""

    numbers: tuple[Number, ...]
    texts: tuple[re.Pattern[str], ...]
    canonical: frozenset[str]
    given: tuple[Number, ...]
    given_texts: frozenset[re.Pattern[str]]

    def number(self, number: Number) -> bool:
        return any(are_same(number, each) for each in self.numbers)

    def is_given(self, number: Number) -> bool:
        return any(are_same(number, each) for each in self.given)


def without_answer(text: str, problem: Problem) -> str | None:
    """The text with HIDDEN in place of every mention of the problem's answer; None if it says nothing else."""
    spans = mentions(text, problem)
    shown = [
        text[before.end : after.start]
        for before, after in zip([Span(0, 0), *spans], [*spans, Span(len(text), 0)], strict=True)
    ]
    rest = _WORDS_OF_MARKS.sub("", "".join(shown))
    if not any(character.isdigit() for character in rest) and sum(map(str.isalpha, rest)) < _ENOUGH_LETTERS:
        return None
    return HIDDEN.join(shown)


def before_answer(text: str, problem: Problem) -> str:
    """The part of the text before the first mention of the problem's answer."""
    spans = mentions(text, problem)
    return text[: spans[0].start] if spans else text


def mentions(text: str, problem: Problem) -> list[Span]:
    """Every place where the text states the problem's answer, in order, without overlaps."""
    sought = _sought(problem)
    marked = list(_marked(text, sought))
    found = list(chain(_numbers(text, sought), _texts(text, sought), _terms(text, sought)))
    results = [span.start for span, is_result, _ in found if is_result]
    first = min([*results, *(span.start for span in marked)], default=len(text))
    spans = [
        *marked,
        *(span for span, is_result, needs_result in found if is_result or not needs_result or span.start > first),
    ]
    if not sought.numbers:
        spans += _last_result(text, marked)
        spans += [Span(*match.span("value")) for match in _ROUNDED.finditer(text)]
    return _merged(spans)


def _sought(problem: Problem) -> _Sought:
    answers = [problem.answer, *map(str, problem.check.get("answers", []))]
    choices = problem.check.get("choices")
    letter = problem.answer.strip("() .")
    if isinstance(choices, list) and len(letter) == 1 and letter.isalpha():
        number = ord(letter.upper()) - ord("A")
        answers += [str(choices[number])] if number < len(choices) else []
    pieces = [piece for answer in answers for piece in _pieces(answer)]
    whole = [answer for answer in answers if answer.strip()]
    named = [(text, is_piece) for texts, is_piece in ((whole, False), (pieces, True)) for text in texts]
    numbers = [(number, is_piece) for text, is_piece in named if (number := read(text)[2])]
    # A plain number is found by its value: its digits alone are also those of exponents and steps.
    as_text = [(text, is_piece) for text, is_piece in named if read(text)[2] is None or _POWER.search(text)]
    texts = [(pattern, is_piece) for text, is_piece in as_text if (pattern := pattern_of(text))]
    stated = [number for match in numerals(problem.problem) if (number := value_of(match[0]))]
    stated += [
        Number(value, False)
        for match in IN_WORDS.finditer(problem.problem)
        if (value := number_in_words(match[0])) is not None
    ]
    return _Sought(
        numbers=tuple(number for number, _ in numbers),
        texts=tuple(pattern for pattern, _ in texts),
        canonical=frozenset(canonical(each) for each in whole),
        given=tuple(
            number for number, is_piece in numbers if is_piece or any(are_same(number, each) for each in stated)
        ),
        given_texts=frozenset(pattern for pattern, is_piece in texts if is_piece or pattern.search(problem.problem)),
    )


def _pieces(answer: str) -> list[str]:
    """The values of an answer with several: `(1, 2)`, `x = 1, y = 2`; and the value of `x = 1`."""
    named = named_parts(plain(answer))
    if named is not None:
        return named.values
    listed = parts(plain(answer))
    if listed is not None:
        return listed.items
    if clock := _CLOCK.match(answer.strip("$ ")):  # `3:45 PM`
        return [clock[0]]
    name, equals, value = plain(answer).partition("=")
    return [value.strip()] if equals and len(name.strip(" \\")) <= 6 else []


def _marked(text: str, sought: _Sought) -> Iterator[Span]:
    """Contents of boxes, statements, tags and fields: all statements of an answer, whatever they hold."""
    boxes = last_boxes(text, limit=64)
    for number, box in enumerate(boxes):
        # A box before the last one may hold a step's result.
        if number == len(boxes) - 1 or canonical(box.content) in sought.canonical or _is_sought(box.content, sought):
            yield Span(box.start, box.end)
    for form in marks.statement_forms(text):
        for match in form.finditer(text):
            group = str(match.lastgroup)
            start = match.start(group)
            value = statement_text(text[start : start + LONGEST], goes_on=group not in ("marked", "hashed"))
            if worth_of(value, "statement") is Worth.VALUE and (at := text.find(value, start, start + LONGEST)) >= 0:
                yield Span(at, at + len(value))
    for match in marks.TAG_OPENING.finditer(text):
        closing = re.compile(r"</|\[/|<\|end_of_").search(text, match.end())
        yield Span(match.end(), closing.start() if closing else len(text))
    for match in marks.JSON_FIELD.finditer(text):
        yield Span(*match.span("text" if match["text"] else "number"))


def _is_sought(text: str, sought: _Sought) -> bool:
    number = read(text)[2]
    return number is not None and sought.number(number)


def _numbers(text: str, sought: _Sought) -> Iterator[tuple[Span, bool, bool]]:
    """Numbers of the answer's value: the place, whether it is stated as a result, and whether only that counts."""
    if not sought.numbers:
        return
    for match in numerals(text):
        span = _as_sought(text, match, sought)
        if span is not None and not _is_notation(text, span):
            number = value_of(match[0])
            is_given = number is None or sought.is_given(number)
            yield span, _is_result(text, span), is_given
    for match in IN_WORDS.finditer(text):
        value = number_in_words(match[0].lower().removeprefix("an ").removeprefix("a ")) or number_in_words(match[0])
        if value is not None and sought.number(Number(value, False)):
            common = value <= _LARGEST_COMMON_WORD or value.denominator != 1
            yield (
                Span(*match.span()),
                _is_result(text, Span(*match.span())),
                common or sought.is_given(Number(value, False)),
            )


def _as_sought(text: str, match: re.Match[str], sought: _Sought) -> Span | None:
    """The place of a numeral, with its scale or sign of percent, if its value is the answer's; else None."""
    number = value_of(match[0])
    if number is None:
        return None
    scale = SCALE.match(text, match.end())
    if (
        scale is not None
        and (scaled := read(match[0] + " " + re.sub(r"\\text\{", "", scale[0]).strip())[2])
        and sought.number(scaled)
    ):
        return Span(match.start(), scale.end())
    if HUNDREDTH.match(text, match.end()) and sought.number(Number(number.value / 100, number.is_decimal)):
        return Span(*match.span())
    if not sought.number(number):
        return None
    # `48/2` is a step on the way to 24, and no way to write it; so is `100/3` for 33.33.
    is_step = number.value.denominator == 1 or all(abs(each.value) != abs(number.value) for each in sought.numbers)
    if FRACTION.search(match[0]) and is_step:
        return None
    return Span(*match.span())


def _is_notation(text: str, span: Span) -> bool:
    """Whether a number there is an exponent, an index, a coefficient, or counts steps."""
    before = text[max(0, span.start - _CONTEXT) : span.start]
    if _RAISED.search(before) or (
        re.search(r"[A-Za-z]\Z", before[-1:]) and not re.search(r"(?i:rs|usd|eur)\Z", before)
    ):
        return True
    if _COEFFICIENT.match(text, span.end):
        return True
    return bool(_ENUMERATED.search(before)) and bool(
        _AFTER_ENUMERATED.match(text, span.end) or not re.search(r"(?:^|\n)[\s*_#>-]*\(?\Z", before)
    )


def _is_result(text: str, span: Span) -> bool:
    before = text[max(0, span.start - _CONTEXT) : span.start]
    return _BEFORE_RESULT.search(before) is not None and _GOES_ON.match(text, span.end) is None


def _texts(text: str, sought: _Sought) -> Iterator[tuple[Span, bool, bool]]:
    for pattern in sought.texts:
        for match in pattern.finditer(text):
            span = Span(*match.span())
            yield span, _is_result(text, span), pattern in sought.given_texts


def _terms(text: str, sought: _Sought) -> Iterator[tuple[Span, bool, bool]]:
    """Formulas between delimiters and signs of equality that are the answer but for their typesetting."""
    start = 0
    for border in chain(_BORDER_OF_TERM.finditer(text), [None]):
        end = border.start() if border else len(text)
        bare = canonical(text[start:end]) if start < end <= start + LONGEST else ""
        if len(bare) > 1 and bare in sought.canonical:
            term = text[start:end]
            yield Span(start + len(term) - len(term.lstrip()), start + len(term.rstrip())), True, False
        start = border.end() if border else end


def _last_result(text: str, marked: list[Span]) -> list[Span]:
    """What the last equation before the final mark says: of a term, other notations cannot be recognised by value."""
    end = max((span.start for span in marked), default=len(text))
    signs = [match.end() for match in _RESULT_SIGN.finditer(text, 0, end)]
    for start in reversed(signs):
        stop = _END_OF_RESULT.search(text, start, end)
        until = stop.start() if stop else end
        if text[start:until].strip(" ${}\\()[]"):
            return [Span(start + len(text[start:until]) - len(text[start:until].lstrip()), until)]
    return []


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans):
        if span.end <= span.start:
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


_WORDS_OF_MARKS = re.compile(r"(?i:the|final|answer|is|therefore|so|boxed|text)")
