"""Mathematical equality of a response's final answer and the reference, by math-verify.

`judge` is pure and may be slow or hungry on hostile text: it is called inside the processes of `offsft.verify.pool`.
"""

import re

from offsft.boxed import last_boxed
from offsft.protocols import Verdict
from offsft.records import Outcome

_TAIL_CHARACTERS = 20_000
"""The final answer stands at the end of a response; more than this is not searched."""
_ANSWER_CHARACTERS = 300
"""A longer answer is compared as text only: it is no answer that anybody would write."""

_STATED = re.compile(
    r"(?:^|\n)[ \t]*(?:####|A:)[ \t]*(?P<marked>[^\n]+)"
    r"|\b(?:final answer|answer)\b(?:[ \t]*(?:is|=|:)[ \t]*)+(?P<said>[^\n]+)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_NUMBER_WITH_UNIT = re.compile(
    r"^[-+]?[$€£]?\s?(?P<number>[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+)\s?(?P<unit>%|\\%|[A-Za-z][A-Za-z .]*)?$"
)


def final_answer(response: str) -> str | None:
    """The answer that a response states: its last `\\boxed{}`, else its last explicit statement; None without either.

    A number that merely stands last is not an answer.
    """
    tail = response[-_TAIL_CHARACTERS:]
    boxed = last_boxed(tail)
    if boxed is not None:
        return boxed or None
    statements = list(_STATED.finditer(tail))
    if not statements:
        return None
    stated = statements[-1]
    text = stated["marked"] if stated["marked"] is not None else _SENTENCE_END.split(stated["said"], maxsplit=1)[0]
    return text.strip().strip("*$` ").rstrip(".,;:") or None


def judge(response: str, answer: str) -> Verdict:
    """Whether the final answer of a response equals the reference answer."""
    found = final_answer(response)
    if found is None:
        return Verdict(Outcome.NO_ANSWER)
    correct = equal(found, answer)
    return Verdict(Outcome.CORRECT if correct else Outcome.WRONG, found[:_ANSWER_CHARACTERS])


def equal(found: str, reference: str) -> bool:
    """Equality as text, as numbers (thousands separators, currency, units aside), or as mathematics."""
    if found.strip() == reference.strip():
        return True
    if len(found) > _ANSWER_CHARACTERS or len(reference) > _ANSWER_CHARACTERS:
        return False
    left, right = _plain_number(found), _plain_number(reference)
    if left is not None and right is not None:
        return left == right
    return _equal_by_math_verify(found, reference)


def _plain_number(text: str) -> float | None:
    """The value of a plain number with an optional currency sign or unit word; None for anything else."""
    match = _NUMBER_WITH_UNIT.match(text.strip().strip("$").replace("\\$", "$").replace("\\!", ""))
    if match is None or match["unit"] in ("%", "\\%"):
        return None
    return float(match["number"].replace(",", "")) * (
        -1 if text.strip().startswith("-") and match["number"][0] != "-" else 1
    )


def _equal_by_math_verify(found: str, reference: str) -> bool:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    # No time limit of its own: it is a SIGALRM, which works in a main thread only. The pool kills instead.
    configs = [LatexExtractionConfig(), ExprExtractionConfig()]
    gold = parse(f"\\boxed{{{reference}}}", extraction_config=configs, parsing_timeout=0)
    target = parse(f"\\boxed{{{found}}}", extraction_config=configs, parsing_timeout=0)
    return bool(gold and target and verify(gold, target, timeout_seconds=0))
