"""Mathematical equality of a response's final answer and the reference, by math-verify.

`judge` is pure and may be slow or hungry on hostile text: it is called inside the processes of `offsft.verify.pool`.
"""

import re
from itertools import product

from offsft.boxed import boxed_answer
from offsft.protocols import Verdict
from offsft.records import Outcome
from offsft.verify.quantity import compatible, read

_TAIL_CHARACTERS = 20_000
"""The final answer stands at the end of a response; more than this is not searched."""
_ANSWER_CHARACTERS = 300
"""A longer answer is compared as text only: it is no answer that anybody would write."""
_DECIMAL_PLACES = 6

_STATED = re.compile(
    # A line of its own: `A: 18` (unless a choice B follows), or `#### 72` as GSM8K ends (but no Markdown heading).
    r"^[ \t]*\**A:[ \t*]*(?P<marked>(?>[^\n]+))(?!\n[ \t*]*B:)"
    r"|^[ \t]*####[ \t]*(?P<hashed>[-+$€£\\(\[{.\d][^\n]*)"
    # `The final answer is 45`, `**Answer:** 45`, `Answer to the first question = 45`.
    r"|\b(?i:answer)\b(?:[ ](?:to|for)[ ][^\n.:=]{1,80}?)?[ \t*_]*(?:(?i:is|equals|(?:should|must|would)[ ]be)\b|=|:)"
    r"(?:[ \t*_:=]|\n)*(?:(?:therefore|thus|then|simply|just)[ ])?(?=(?P<said>[^\n]+))"
    # A Markdown heading with the answer below it.
    r"|^[ \t#*_]*(?i:final[ ]answer)[ \t*_:]*\n\s*(?P<below>[^\n]+)",
    re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|,?\s+(?:and\s+)?(?:which|because|since|so|as|meaning)\b")
_WORD_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")


def final_answer(response: str) -> str | None:
    """The answer that a response states: its last `\\boxed{}`, else its last explicit statement; None without either.

    Boxes that are joined by a comma, "and" or "or" are one answer. A number that merely stands last is not an answer.
    """
    tail = response[-_TAIL_CHARACTERS:]
    boxed = boxed_answer(tail)
    if boxed is not None:
        return boxed or None
    statements = list(_STATED.finditer(tail))
    if not statements:
        return None
    stated = statements[-1]
    text = stated[stated.lastgroup or 0].strip("*$` \t")[: 2 * _ANSWER_CHARACTERS]
    if stated.lastgroup in ("said", "below"):
        text = _SENTENCE_END.split(text, maxsplit=1)[0]
    return text.strip("*$` \t").rstrip(".,;:*").strip() or None


def judge(response: str, answer: str) -> Verdict:
    """Whether the final answer of a response equals the reference answer."""
    found = final_answer(response)
    if found is None:
        return Verdict(Outcome.NO_ANSWER)
    correct = equal(found, answer)
    return Verdict(Outcome.CORRECT if correct else Outcome.WRONG, found[:_ANSWER_CHARACTERS])


def equal(found: str, reference: str) -> bool:
    """Equality as text, as numbers (exactly; thousands separators aside), or as mathematics; units must not differ."""
    found, reference = found.strip(), reference.strip()
    if found == reference:
        return True
    if len(found) > _ANSWER_CHARACTERS or len(reference) > _ANSWER_CHARACTERS:
        return False
    (found, found_unit, left), (reference, reference_unit, right) = read(found), read(reference)
    if not compatible(found_unit, reference_unit):
        return False
    if left is None or right is None:
        return found == reference or _equal_by_math_verify(found, reference)
    if left.is_fraction is right.is_fraction:
        return left.value == right.value
    # A decimal stands for a fraction when it is right to six places, which is also math-verify's precision.
    return round(left.value, _DECIMAL_PLACES) == round(right.value, _DECIMAL_PLACES)


def _equal_by_math_verify(found: str, reference: str) -> bool:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    # math-verify's own removal of units takes variables for them: it holds 5n for 5.
    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    configs = [LatexExtractionConfig(normalization_config=normalization), ExprExtractionConfig()]
    # No time limit of its own: it is a SIGALRM, which works in a main thread only. The pool kills instead.
    reference, found = (_WORD_PI.sub(r"\\pi", text) for text in (reference, found))
    gold = parse(f"\\boxed{{{reference}}}", extraction_config=configs, parsing_timeout=0)
    target = parse(f"\\boxed{{{found}}}", extraction_config=configs, parsing_timeout=0)
    for one, other in product(gold, target):
        try:
            if verify(one, other, float_rounding=_DECIMAL_PLACES, timeout_seconds=0, raise_on_error=True):
                return True
        except MemoryError:
            raise
        except Exception:  # sympy raises of all kinds: what it cannot compare is not equal
            continue
    return False
