"""Mathematical equality of a response's final answer and the reference, by math-verify.

`judge` is pure and may be slow or hungry on hostile text: it is called inside the processes of `offsft.verify.pool`.
"""

import re
from fractions import Fraction
from itertools import product

from offsft.boxed import boxed_answer
from offsft.config import Tolerance, Verify
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.quantity import compatible, read
from offsft.verify.structure import parts, without_name

_TAIL_CHARACTERS = 20_000
"""The final answer stands at the end of a response; more than this is not searched."""
_ANSWER_CHARACTERS = 300
"""A longer answer is compared as text only: it is no answer that anybody would write."""
_STRUCTURE_CHARACTERS = 2_000
"""The same for one that has parts, each of which is as long as an answer may be."""
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
_THOUSANDS = re.compile(r"(?<=\d)\{,\}(?=\d{3}(?!\d))")
_ROOT = re.compile(r"√\s*(\d+|[A-Za-z]|\([^()]*\))")
_SIGNS = str.maketrans(
    {"π": "\\pi ", "θ": "\\theta ", "∞": "\\infty ", "·": "\\cdot ", "⋅": "\\cdot ", "×": "\\times ", "−": "-"}
    | {"≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "±": "\\pm ", "∪": "\\cup ", "∈": "\\in "}
)
_SUBSCRIPTED = re.compile(r"(?<![A-Za-z\\])[A-Za-z]_")
# Between letters and digits a space says something (`1 1/2`, `\pi r`); beside any other sign it is typesetting.
_IDLE_SPACE = re.compile(r"(?<![^\W_])\s+|\s+(?![^\W_])")


def final_answer(response: str) -> str | None:
    """The answer that a response states: its last `\\boxed{}`, else its last explicit statement; None without either.

    Boxes that are joined by a comma, "and" or "or" are one answer. A number that merely stands last is not an answer.
    """
    return located_answer(response)[0]


def located_answer(response: str) -> tuple[str | None, str]:
    """As `final_answer`, with where it stood: `box`, `statement`, or nothing."""
    tail = response[-_TAIL_CHARACTERS:]
    boxed = boxed_answer(tail)
    if boxed is not None:
        return boxed or None, "box"
    statements = list(_STATED.finditer(tail))
    if not statements:
        return None, ""
    stated = statements[-1]
    text = stated[stated.lastgroup or 0].strip("*$` \t")[: 2 * _ANSWER_CHARACTERS]
    if stated.lastgroup in ("said", "below"):
        text = _SENTENCE_END.split(text, maxsplit=1)[0]
    return text.strip("*$` \t").rstrip(".,;:*").strip() or None, "statement"


EXACT = Tolerance()


class MathJudge:
    """`verify.kind=math`; a problem's `check` may hold `absolute`, `relative`, `unit`, and `answers`, any of which is right."""

    def __init__(self, settings: Verify) -> None:
        self._tolerance = settings.tolerance

    def __call__(self, response: str, problem: Problem) -> Verdict:
        answers = [problem.answer, *problem.check.get("answers", [])]
        return judge(
            response, *answers, tolerance=tolerance_of(problem, self._tolerance), unit=problem.check.get("unit")
        )


def tolerance_of(problem: Problem, default: Tolerance) -> Tolerance:
    """The tolerance of a problem's `check`, where it says one."""
    own = {name: float(problem.check[name]) for name in ("absolute", "relative") if name in problem.check}
    return default.model_copy(update=own)


def judge(response: str, *answers: str, tolerance: Tolerance = EXACT, unit: str | None = None) -> Verdict:
    """Whether the final answer of a response equals one of the reference answers, which are in `unit`."""
    found, where = located_answer(response)
    if found is None:
        return Verdict(Outcome.NO_ANSWER, why="neither a \\boxed{} nor a statement of the answer")
    if unit:
        answers = tuple(f"{answer}\\text{{ {_unit_words(unit)}}}" for answer in answers)
    correct = any(equal(found, answer, tolerance) for answer in answers)
    outcome, why = (Outcome.CORRECT, "equal") if correct else (Outcome.WRONG, f"not equal to {answers[0]}"[:200])
    return Verdict(outcome, found[:_ANSWER_CHARACTERS], where, why)


def equal(found: str, reference: str, tolerance: Tolerance = EXACT) -> bool:
    """Equality as text, as numbers (exactly; thousands separators aside), part by part, or as mathematics.

    Units must not differ. With a tolerance, numbers may differ by it, alone and as parts of a structure.
    """
    found, reference = _in_latex(found), _in_latex(reference)
    if found == reference or _IDLE_SPACE.sub("", found) == _IDLE_SPACE.sub("", reference):
        return True
    if max(len(found), len(reference)) > _STRUCTURE_CHARACTERS:
        return False
    left, right = parts(found), parts(reference)
    if left is None or right is None:
        found, reference = without_name(found, reference)
        left, right = parts(found), parts(reference)
    if left is not None and right is not None:
        if left.opening != right.opening or left.closing != right.closing or len(left.items) != len(right.items):
            return False
        if left.ordered or right.ordered:
            return all(equal(a, b, tolerance) for a, b in zip(left.items, right.items, strict=True))
        return _paired(left.items, right.items, tolerance)
    return _equal_single(found, reference, tolerance)


def _in_latex(text: str) -> str:
    """The text with Unicode's signs as LaTeX has them, and no `{,}` in numbers."""
    return _ROOT.sub(r"\\sqrt{\1}", _THOUSANDS.sub("", text.strip()).translate(_SIGNS)).strip()


def _paired(left: list[str], right: list[str], tolerance: Tolerance) -> bool:
    """Whether each item has a partner of its own on the other side; the first that fits is taken."""
    free = list(right)
    for item in left:
        partner = next((other for other in free if equal(item, other, tolerance)), None)
        if partner is None:
            return False
        free.remove(partner)
    return True


def _equal_single(found: str, reference: str, tolerance: Tolerance) -> bool:
    if max(len(found), len(reference)) > _ANSWER_CHARACTERS:
        return False
    (found, found_unit, left), (reference, reference_unit, right) = read(found), read(reference)
    if not compatible(found_unit, reference_unit):
        return False
    if left is None or right is None:
        return found == reference or _equal_by_math_verify(found, reference, tolerance)
    if abs(left.value - right.value) <= max(
        Fraction(tolerance.absolute), Fraction(tolerance.relative) * abs(right.value)
    ):
        return True
    if left.is_fraction is right.is_fraction:
        return left.value == right.value
    # A decimal stands for a fraction when it is right to six places, which is also math-verify's precision.
    return round(left.value, _DECIMAL_PLACES) == round(right.value, _DECIMAL_PLACES)


def _allowed(tolerance: Tolerance, reference: float) -> float:
    return max(tolerance.absolute, tolerance.relative * reference)


def _unit_words(unit: str) -> str:
    return re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", unit.strip("$ "))


def _equal_by_math_verify(found: str, reference: str, tolerance: Tolerance) -> bool:
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
        if _lacks_variables(one, reference) or _lacks_variables(other, found):
            continue
        try:
            if verify(one, other, float_rounding=_DECIMAL_PLACES, timeout_seconds=0, raise_on_error=True):
                return True
            if tolerance != EXACT and _close(one, other, tolerance):
                return True
        except MemoryError:
            raise
        except Exception:  # sympy raises of all kinds: what it cannot compare is not equal
            continue
    return False


def _lacks_variables(parsed: object, text: str) -> bool:
    """Whether math-verify read a number where the text names a quantity such as `E_{1}`, which it sometimes drops.

    Of an equation the number is what stands behind the sign, so that its name may go.
    """
    from sympy import Expr

    names = "=" not in text and _SUBSCRIPTED.search(text) is not None
    return names and isinstance(parsed, Expr) and not parsed.free_symbols


def _close(gold: object, target: object, tolerance: Tolerance) -> bool:
    """Whether two of math-verify's expressions are numbers that differ by no more than the tolerance."""
    from sympy import Expr

    if not isinstance(gold, Expr) or not isinstance(target, Expr) or gold.free_symbols or target.free_symbols:
        return False
    reference = complex(gold.evalf())
    return abs(complex(target.evalf()) - reference) <= _allowed(tolerance, abs(reference))
