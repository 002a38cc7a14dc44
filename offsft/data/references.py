"""The reference answer of a row: read from its field or the solution, or refused with a reason."""

import ast
import json
import re
from typing import Any

from offsft.data.rows import Reason, Unusable, kind_of
from offsft.data.values import number_text
from offsft.verify.answer import located_answer
from offsft.verify.rational import exact_value

_NO_ANSWER = re.compile(
    r"(?i:\W*(?:proof|not ?found|no ?answer(?: found)?|answer not (?:found|available|provided)|n/?a|nan|null|none|nil|unknown|missing|not (?:available|provided|given|applicable)"
    r"|tb[ad]|to ?do|unanswered|see (?:the )?(?:solution|explanation|above|below)|omitted)\W*|[\s?.\-_–—]+|\[\s*\]|\{\s*\})"
)
"""Words that data sets write where they have no answer."""
_AS_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox)\s*\{([^{}]*)\}")
_INVALID = {"no", "false", "invalid", "incomplete", "0"}
_VALIDITY = ("problem_is_valid", "solution_is_valid", "is_valid")
"""NuminaMath's columns on a row's validity."""
_LOST_ESCAPE = re.compile(
    # \alpha, \beta, \vec, \frac, \end read as control characters; \theta and \neq as a tab and a line's end.
    r"[\x01-\x08\x0b\x0c\x0e-\x1f](?=[A-Za-z])"
    r"|\t(?:imes|frac|heta|riangle|ilde|herefore|ext(?=[{bi])|an(?=\s*[({^\\]|\s+\w(?!\w))|au(?![a-z])|o(?=\s+[-\d\\]))"
    r"|\n(?:eq|abla|otin|earrow|warrow|leq|geq)(?![a-z])|\r(?:ight|ho(?![a-z])|angle|floor|ceil)"
)
_WRAPPED = re.compile(r"\s*(?:\$\$(?P<two>[^$]+)\$\$|\$(?P<one>[^$]+)\$|\\\((?P<round>.+)\\\)|\\\[(?P<square>.+)\\\])\s*[.]?\s*", re.DOTALL)  # fmt: skip
_STATED = {"box", "statement", "tag"}


def check_escapes(**texts: str) -> None:
    """Refuse text in which an unescaped backslash of LaTeX was read as a control character: `\\frac` as a form feed.

    Raises:
        Unusable: one of the texts has lost one.
    """
    for name, text in texts.items():
        if lost := _LOST_ESCAPE.search(text):
            around = text[max(0, lost.start() - 10) : lost.end() + 10]
            raise Unusable(
                Reason.LOST_ESCAPE,
                f"the {name} has a control character where LaTeX had a backslash: {around!r}; write \\\\ for it in JSON",
            )


def check_validity(row: dict[str, Any]) -> None:
    """Refuse a row that its data set itself marks as a proof, or as not valid.

    Raises:
        Unusable: it is marked so.
    """
    for name in _VALIDITY:
        if isinstance(row.get(name), str | bool) and str(row[name]).strip().lower() in _INVALID:
            raise Unusable(Reason.NO_ANSWER, f"the data set marks the row as not valid ({name}: {row[name]})")
    if str(row.get("question_type")).strip().lower() == "proof":
        raise Unusable(Reason.NO_ANSWER, "the data set marks the problem as a proof, which has no answer")


def answer_text(value: Any, name: str) -> str | None:
    """The reference answer in a field's value, as bare as the verifier reads it; None if the field is empty.

    A list of answers is one, joined by commas. A box, dollar signs and sentences such as `The answer is 5` are taken off.

    Raises:
        Unusable: the value is no answer, or a word that stands for none.
    """
    if isinstance(value, str):
        value = _listed(value)
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, list):
        found = [answer_text(each, name) for each in value]
        return ", ".join(each for each in found if each) or None
    number = number_text(value)
    if number is not None:
        return number
    if not isinstance(value, str):
        raise Unusable(Reason.WRONG_TYPE, f"the field {name!r} holds {kind_of(value)}, not text")
    refuse_no_answer(value, name)
    return bare_answer(value)


def bare_answer(text: str) -> str:
    """An answer without its wrapper: a box, dollar signs, tags, or the sentence that states it."""
    if text.lstrip()[:1] not in ("{", "[", "^"):
        found, where = located_answer(text)
        if found is not None and where in _STATED:
            text = found
    match = _WRAPPED.fullmatch(text)
    return (match[str(match.lastgroup)] if match else text).strip()


def refuse_no_answer(text: str, name: str) -> None:
    """Refuse a word that stands for no answer.

    Raises:
        Unusable: the text is such a word.
    """
    if _NO_ANSWER.fullmatch(_AS_TEXT.sub(r"\1", text).strip("$ \n\t")):
        raise Unusable(Reason.NO_ANSWER, f"the field {name!r} says {text.strip()[:40]!r}, which stands for no answer")


def _listed(text: str) -> Any:
    """The list of texts that a text holds, as CSV files and verl's rows have it; the text itself if it holds none."""
    if not re.match(r"\s*\[\s*[\"']", text):
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(each, str) for each in found):
            return found
    return text


def solution_answer(solution: str) -> tuple[str | None, bool]:
    """The final answer that a solution states, and whether it is in a box, by the verifier's own rules."""
    found, where = located_answer(solution)
    return found, where == "box"


def check_agreement(answer: str, stated: str | None) -> None:
    """Refuse a row whose solution ends in another number than its answer.

    Only plain numbers are compared: all else would need the verifier, and it might be the same in another form.

    Raises:
        Unusable: the two differ.
    """
    first, second = (exact_value(bare_answer(each).replace("\\%", "").replace("%", "")) for each in (answer, stated or ""))  # fmt: skip
    if first is None or second is None or first.value == second.value:
        return
    if first.is_decimal or second.is_decimal or first.value == second.value * 100 or second.value == first.value * 100:
        return  # a rounded number, or a percentage
    raise Unusable(
        Reason.CONTRADICTION, f"the answer's field says {answer[:40]!r}, and the solution ends in {str(stated)[:40]!r}"
    )
