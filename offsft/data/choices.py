"""The choices of a row, and the letter of the right one: told by the field's type and by the whole column.

A column's answers are letters, texts, numbers from 0 (`index`) or numbers from 1 (`position`). Text and numbers are told
apart row by row only where one reading is possible; where two are, the column decides, else the setting
`data.fields.answer_is`, else the row is refused.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from offsft.config import AnswerIs, Fields
from offsft.data.references import bare_answer
from offsft.data.rows import Reason, Unusable, kind_of
from offsft.data.values import find, get, number_text
from offsft.verify.choice import LETTERS, chosen_letter
from offsft.verify.text import normalise

_MARK = re.compile(
    r"\s*(?:[(\[]?(?P<letter>[A-Pa-p])\s*[).\]:、]\s*|\(?(?P<number>\d{1,2})\)\s+)(?P<text>.*\S)\s*", re.DOTALL
)
_DRESSED = re.compile(r"\s*(?:(?i:option|choice|answer)[\s:]*)?[(\[]?\s*(?P<letter>[A-Pa-p])\s*[)\].:]*\s*")
_WITH_TEXT = re.compile(r"\s*[(\[]?(?P<letter>[A-P])\s*[)\].:]+\s*(?P<text>\S.*)", re.DOTALL)
_SPLIT = re.compile(r"\s*,?\s*(?:^|(?<=[\s,]))(?=\(?[a-pA-P]\s*[).]\s)")
_AMBIGUOUS = "; set data.fields.answer_is to letter, text, index (from 0) or position (from 1)"


@dataclass(frozen=True, slots=True)
class Choices:
    """The texts of a row's choices, and their labels as published (ARC's `A` or `1`), if there are any."""

    texts: list[str]
    labels: list[str]

    @property
    def letters(self) -> str:
        """The letters of the choices; all there are where the choices are part of the problem's text."""
        return LETTERS[: len(self.texts)] if self.texts else LETTERS

    def below(self, problem: str) -> str:
        """The problem with its choices below, each with its letter."""
        listed = "\n".join(f"{letter}. {text}" for letter, text in zip(self.letters, self.texts, strict=False))
        return f"{problem}\n\n{listed}" if listed else problem


@dataclass(frozen=True, slots=True)
class Column:
    """What a column's answers are: `numbers` those given as numbers, `texts` those given as text.

    None: undecided, so that a row with two readings is refused.
    """

    numbers: AnswerIs | None
    texts: AnswerIs | None


def read_choices(row: dict[str, Any], fields: Fields, problem: str) -> Choices:
    """The choices of a row, in a list, an object, text, or fields of their own.

    Where the answer's own field is one of those, the order is drawn by the problem's text: the right one comes first in
    such data sets.

    Raises:
        Unusable: there are none, one is no text, or there are more than letters.
    """
    assert fields.choices is not None
    if isinstance(fields.choices, list):
        values = [get(row, name, "data.fields.choices") for name in fields.choices]
        if fields.answer in fields.choices:
            values = sorted(values, key=lambda text: hashlib.sha256(f"{problem}\n{text}".encode("utf-8", "replace")).digest())  # fmt: skip
        return _checked([_text(value) for value in values], [])
    return _from_value(get(row, fields.choices, "data.fields.choices"), fields.choices)


def _from_value(value: Any, name: str) -> Choices:
    if isinstance(value, str):
        value = _unpacked(value)
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # ARC, CommonsenseQA
        labels = value.get("label") or []
        return _checked([_text(each) for each in value["text"]], [str(each) for each in labels])
    if isinstance(value, dict) and value:
        return _checked([_text(each) for each in value.values()], [str(each) for each in value])
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        labels = [str(each["label"]) for each in value if "label" in each]
        return _checked([_text(each.get("text", each.get("value"))) for each in value], labels)
    if isinstance(value, list) and value:
        return _checked(*_without_marks([_text(each) for each in value]))
    raise Unusable(Reason.WRONG_TYPE, f"the field {name!r} holds no list of choices, but {kind_of(value)}")


def _checked(texts: list[str], labels: list[str]) -> Choices:
    if len(texts) > len(LETTERS):
        raise Unusable(Reason.WRONG_TYPE, f"{len(texts)} choices; at most {len(LETTERS)} can be told apart by letters")
    if not all(texts):
        raise Unusable(Reason.EMPTY_FIELD, f"choice {1 + texts.index('')} of {len(texts)} is empty")
    return Choices(texts, labels if len(labels) == len(texts) else [])


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else number_text(value)
    if text is None:
        raise Unusable(Reason.WRONG_TYPE, f"a choice is {kind_of(value)}, not text")
    return text.strip()


def _unpacked(value: str) -> Any:
    """The choices in one text: a list as JSON or Python writes it, one a line, or `a ) 38 , b ) 40`, as MathQA."""
    if value.lstrip()[:1] in ("[", "{"):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    lines = [line for line in value.splitlines() if line.strip()]
    if len(lines) > 1:
        return lines
    marked = [part for part in _SPLIT.split(value) if part.strip()]
    return marked if len(marked) > 1 else value


def _without_marks(texts: list[str]) -> tuple[list[str], list[str]]:
    """The texts without the marks that all of them begin with, in order (`A)21`, `(b) 22`), and the marks."""
    marked = [_MARK.fullmatch(text) for text in texts]
    marks = [(match["letter"] or match["number"]).upper() for match in marked if match]
    if marks in (list(LETTERS[: len(texts)]), [str(number + 1) for number in range(len(texts))]):
        return [match["text"].rstrip(" ,") for match in marked if match], marks
    return texts, []


def decide(rows: Iterable[tuple[Any, Choices]]) -> Column:
    """What the answers of a column are, from all its pairs of an answer and its row's choices."""
    numbers: list[tuple[int, int]] = []
    texts: list[dict[AnswerIs, int]] = []
    digits: list[tuple[int, int]] = []
    for value, choices in rows:
        if (number := _number(value)) is not None:
            numbers.append((number, len(choices.texts)))
        elif isinstance(value, str) and value.strip() and value.strip() not in choices.labels:
            texts.append(_readings(value, choices))
            if value.strip().isdecimal():
                digits.append((int(value), len(choices.texts)))
    return Column(_first_number(numbers) if numbers else None, _kind_of_texts(texts, digits))


def _first_number(numbers: list[tuple[int, int]]) -> AnswerIs:
    """`position` where numbers count from 1: one is as large as the number of choices, and none is 0."""
    is_position = any(number == size for number, size in numbers) and all(number != 0 for number, _ in numbers)
    return "position" if is_position else "index"


def _kind_of_texts(readings: list[dict[AnswerIs, int]], digits: list[tuple[int, int]]) -> AnswerIs | None:
    """The one reading that all rows allow; among numbers from 0 and from 1, the one that the column shows."""
    if not readings:
        return None
    base = _first_number(digits)
    if len(digits) == len(readings) and not all("text" in each for each in readings):
        return base
    kinds: tuple[AnswerIs, ...] = ("letter", "text", base)
    possible: list[AnswerIs] = [kind for kind in kinds if all(kind in each for each in readings)]
    agreeing = [kind for kind in possible if all(each[kind] == each[possible[0]] for each in readings)]
    return possible[0] if possible and agreeing == possible else None


def _readings(value: str, choices: Choices) -> dict[AnswerIs, int]:
    """Each possible reading of a text, with the place of the choice that it means."""
    found: dict[AnswerIs, int] = {}
    size = len(choices.texts)
    said = normalise(value)
    same = [place for place, text in enumerate(choices.texts) if text == value.strip()]
    same = same or [place for place, text in enumerate(choices.texts) if normalise(text) == said and said]
    if len(same) == 1:
        found["text"] = same[0]
    if "text" not in found and value.strip() not in choices.labels:
        value = bare_answer(value)
    match = _DRESSED.fullmatch(value) or _WITH_TEXT.fullmatch(value)
    if match and match["letter"].upper() in choices.letters:
        place = choices.letters.index(match["letter"].upper())
        stated = normalise(match["text"]) if "text" in match.re.groupindex else None
        if stated is None or not choices.texts or stated == normalise(choices.texts[place]):
            found["letter"] = place
    bare = value.strip().strip("().")
    if bare.isdecimal():
        if int(bare) < size:
            found["index"] = int(bare)
        if 1 <= int(bare) <= size:
            found["position"] = int(bare) - 1
    return found


def _number(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def letter_of(value: Any, choices: Choices, column: Column | None, answer_is: AnswerIs | None) -> str:
    """The letter of the right choice.

    Raises:
        Unusable: the value means no choice, or more than one and neither column nor setting decides.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    column = column or decide([(value, choices)])
    label = number_text(value) or (value.strip() if isinstance(value, str) else None)
    if label is None:
        raise Unusable(Reason.WRONG_TYPE, f"the answer is {kind_of(value)}, not the letter, text or number of a choice")
    if answer_is is None and label in choices.labels:
        return choices.letters[choices.labels.index(label)]
    number = _number(value)
    found = _readings(label, choices)
    kind = answer_is or (column.numbers if number is not None else column.texts)
    if kind is None:
        places = {place for name, place in found.items() if name != "index" or "position" not in found}
        places |= {found["index"]} if "index" in found else set()
        if len(places) > 1:
            told = " or ".join(f"{name} ({choices.letters[place]})" for name, place in found.items())
            raise Unusable(Reason.AMBIGUOUS_ANSWER, f"the answer {label[:60]!r} can be read as {told}{_AMBIGUOUS}")
        kind = next(iter(found), None)
    if kind is None or kind not in found:
        what = {"letter": "the letter", "text": "the text", "index": "a number from 0", "position": "a number from 1"}
        wanted = what[kind] if kind else "the letter, a number or the text"
        raise Unusable(Reason.NO_ANSWER, f"the answer {label[:60]!r} is not {wanted} of one of {len(choices.texts)} choices")  # fmt: skip
    return choices.letters[found[kind]]


def stated_letter(solution: str, choices: Choices) -> str | None:
    """The letter that a solution chooses, by the verifier's own rules."""
    return chosen_letter(solution, choices.texts)[0]


def column_of(rows: Iterable[dict[str, Any]], fields: Fields) -> Column:
    """What the answers in a field are, from all rows; those that cannot be read have no say."""
    return decide(_pairs(rows, fields))


def _pairs(rows: Iterable[dict[str, Any]], fields: Fields) -> Iterable[tuple[Any, Choices]]:
    assert fields.answer is not None
    for row in rows:
        value = find(row, fields.answer, None)
        try:
            choices = read_choices(row, fields, "")
        except Unusable:
            continue
        yield (value[0] if isinstance(value, list) and len(value) == 1 else value), choices
