"""Mathematical equality of a response's final answer and the reference, by math-verify.

`judge` is pure and may need much time or memory on hostile text: it is called in the processes of `offsft.verify.pool`.
"""

import re
from fractions import Fraction

from offsft.config import Tolerance, VerifyConfig
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.algebra import DECIMAL_PLACES, EXACT, SIGNIFICANT, same_mathematics
from offsft.verify.answer import located_answer
from offsft.verify.labels import bare_letter, labelled
from offsft.verify.named import NamedParts, named_parts, residue
from offsft.verify.notation import plain
from offsft.verify.quantity import Number, compatible, read, read_base
from offsft.verify.ranges import read_set, speaks_of_a_range
from offsft.verify.structure import AnswerParts, parts, without_name
from offsft.verify.text import are_same_words
from offsft.verify.units import Unit

_ANSWER_CHARACTERS = 300
"""A longer answer is compared as text only: nobody would write such an answer."""
_STRUCTURE_CHARACTERS = 2_000
"""The same limit for an answer with parts, each of which may have an answer's length."""

# Between letters and digits a space has a meaning (`1 1/2`, `\pi r`); next to any other sign it is typesetting.
_IDLE_SPACE = re.compile(r"(?<![^\W_])\s+|\s+(?![^\W_])")


class MathJudge:
    """Judges `verify.kind=math`.

    A problem's `check` may hold `absolute`, `relative`, `unit`, and `answers`, any of which is correct.
    """

    warm_up = ("\\boxed{\\sin x + 1}", Problem("", "", "", "1 + \\cos x"))
    """What is compared as mathematics, so that a new process imports all that this takes before its first verdict."""

    def __init__(self, settings: VerifyConfig) -> None:
        self._tolerance = settings.tolerance

    def __call__(self, response: str, problem: Problem) -> Verdict:
        answers = [problem.answer, *problem.check.get("answers", [])]
        return judge(
            response, *answers, tolerance=tolerance_of(problem, self._tolerance), unit=problem.check.get("unit")
        )


def tolerance_of(problem: Problem, default: Tolerance) -> Tolerance:
    """The tolerance given in a problem's `check`, else the default."""
    own = {name: float(problem.check[name]) for name in ("absolute", "relative") if name in problem.check}
    return default.model_copy(update=own)


def judge(response: str, *answers: str, tolerance: Tolerance = EXACT, unit: str | None = None) -> Verdict:
    """Judge whether the final answer of a response equals one of the reference answers, which are in `unit`."""
    found, where = located_answer(response)
    if found is None:
        return Verdict(Outcome.NO_ANSWER, why="neither a \\boxed{} nor a statement of the answer")
    if unit:
        answers = tuple(f"{answer}\\text{{ {_unit_words(unit)}}}" for answer in answers)
    correct = any(equal(found, answer, tolerance) for answer in answers)
    outcome, why = (Outcome.CORRECT, "equal") if correct else (Outcome.WRONG, f"not equal to {answers[0]}"[:200])
    return Verdict(outcome, found[:_ANSWER_CHARACTERS], where, why)


def equal(found: str, reference: str, tolerance: Tolerance = EXACT) -> bool:
    """Equality as text, as sets, part by part, as numbers (exactly), as words, or as mathematics, in plain notation.

    Units must not differ. With a tolerance, numbers may differ by it, alone and as parts of a structure.
    """
    if found == reference:
        return True
    if (left := _numeral(found)) is not None and (right := _numeral(reference)) is not None:
        return _equal_numbers(left, right, tolerance)
    found, reference = plain(found), plain(reference)
    if found == reference or _IDLE_SPACE.sub("", found) == _IDLE_SPACE.sub("", reference):
        return True
    if max(len(found), len(reference)) > _STRUCTURE_CHARACTERS:
        return False
    for compare in (_equal_labelled, _equal_residues, _equal_named, _equal_sets):
        decided = compare(found, reference, tolerance)
        if decided is not None:
            return decided
    left, right = parts(found), parts(reference)
    if left is None or right is None:
        found, reference = without_name(found, reference)
        left, right = parts(found), parts(reference)
    # A set of one element is that element.
    for side, other, text in ((left, right, reference), (right, left, found)):
        if (
            side is not None
            and side.opening == "\\{"
            and len(side.items) == 1
            and (other is None or other.opening in "([")
        ):
            return equal(side.items[0], text, tolerance)
    if left is not None and right is not None:
        return _equal_parts(left, right, tolerance)
    # One value in several forms: `1/2 or 50 %`.
    for side, text, other in ((left, found, reference), (right, reference, found)):
        if side is not None and not side.opening and _OR.search(text):
            return all(equal(item, other, tolerance) for item in side.items)
    return _equal_single(found, reference, tolerance)


def _numeral(text: str) -> Number | None:
    """A fast path for the most common answer, a number in digits only."""
    if not _NUMERAL.fullmatch(text):
        return None
    return Number(Fraction(text.replace(",", "")), "." in text)


def _equal_labelled(found: str, reference: str, tolerance: Tolerance) -> bool | None:
    """Equality of choices by their letters where both sides have one, else by the text behind the letter."""
    left, right = labelled(found), labelled(reference)
    one, other = (side.letter if side else bare_letter(text) for side, text in ((left, found), (right, reference)))
    if one is not None and other is not None:
        if one != other:
            return False
        if left is None or right is None or (left.certain and right.certain):
            return True
    if left is None and right is None:
        return None
    return equal(left.text if left else found, right.text if right else reference, tolerance)


def _equal_residues(found: str, reference: str, tolerance: Tolerance) -> bool | None:
    """Equality of residues; a modulus may be missing, but must not differ."""
    left, right = residue(found), residue(reference)
    if left is None and right is None:
        return None
    if left is not None and right is not None and not equal(left[1], right[1]):
        return False
    (one, modulus), (other, _) = left or (found, (right or ("", ""))[1]), right or (reference, "")
    values = [read(text)[2] for text in (one, other, modulus)]
    if left and right and all(number is not None and number.value.denominator == 1 for number in values) and values[2]:
        return (
            (values[0].value - values[1].value) % values[2].value == 0
            if values[0] and values[1] and values[2].value
            else False
        )
    return equal(one, other, tolerance)


def _equal_named(found: str, reference: str, tolerance: Tolerance) -> bool | None:
    """Equality of named values: by name, or by order if the other side has no names."""
    left, right = named_parts(found), named_parts(reference)
    if left is None and right is None:
        return None
    if left is not None and right is not None:
        if left.are_distinct and right.are_distinct and not (left.are_alternatives and right.are_alternatives):
            values = dict(zip(right.names, right.values, strict=True))
            return set(left.names) == set(values) and all(
                equal(value, values[name], tolerance) for name, value in zip(left.names, left.values, strict=True)
            )
        same_names = {name[:1] for name in left.names} == {name[:1] for name in right.names}
        return same_names and _pair_up(left.values, right.values, tolerance)
    named, bare = (left, parts(reference)) if left is not None else (right, parts(found))
    return _equal_unnamed(named, bare, tolerance) if named is not None and bare is not None else None


def _equal_unnamed(named: NamedParts, bare: AnswerParts, tolerance: Tolerance) -> bool:
    if len(named.values) != len(bare.items) or bare.opening in ("\\cup", "matrix", "["):
        return False
    if named.are_alternatives and not bare.ordered:
        return _pair_up(named.values, bare.items, tolerance)
    return all(equal(a, b, tolerance) for a, b in zip(named.values, bare.items, strict=True))


def _equal_sets(found: str, reference: str, tolerance: Tolerance) -> bool | None:
    """Equality of sets of numbers if one side's notation can mean nothing else, such as an inequality."""
    certain = [text for text in (found, reference) if _MAY_BE_A_SET.search(text) or speaks_of_a_range(text)]
    if not certain:
        return None
    left, right = read_set(found), read_set(reference)
    if left is None or right is None:
        is_range = any(map(speaks_of_a_range, certain)) or any(each and each.is_certain for each in (left, right))
        return False if is_range and any(read(text)[2] for text in (found, reference)) else None
    if not (left.is_certain or right.is_certain):
        return None
    if left.variable and right.variable and left.variable != right.variable:
        return False
    return left.numbers == right.numbers or None if tolerance != EXACT else left.numbers == right.numbers


def _equal_parts(left: AnswerParts, right: AnswerParts, tolerance: Tolerance) -> bool:
    if len(left.items) != len(right.items):
        return False
    # `\{1, 2\}` and `1, 2` are one set in two notations.
    listed = {left.opening, right.opening} <= {"", "\\{"}
    if not listed and (left.opening != right.opening or left.closing != right.closing):
        return False
    if left.ordered or right.ordered:
        return all(equal(a, b, tolerance) for a, b in zip(left.items, right.items, strict=True))
    return _pair_up(left.items, right.items, tolerance)


def _pair_up(left: list[str], right: list[str], tolerance: Tolerance) -> bool:
    """Whether the items of both sides match one to one; each takes the first free match."""
    free = list(right)
    for item in left:
        partner = next((other for other in free if equal(item, other, tolerance)), None)
        if partner is None:
            return False
        free.remove(partner)
    return not free


def _equal_single(found: str, reference: str, tolerance: Tolerance) -> bool:
    if max(len(found), len(reference)) > _ANSWER_CHARACTERS:
        return False
    based = _equal_bases(found, reference)
    if based is not None:
        return based
    percent = _equal_percent(found, reference, tolerance)
    if percent is not None:
        return percent
    (found, found_unit, left), (reference, reference_unit, right) = _read_both(found, reference)
    if not compatible(found_unit, reference_unit):
        return False
    if left is not None and right is not None:
        return _equal_numbers(left, right, tolerance)
    if found == reference or are_same_words(found, reference):
        return True
    return same_mathematics(found, reference, tolerance)


def _read_both(found: str, reference: str) -> tuple[tuple[str, Unit, Number | None], tuple[str, Unit, Number | None]]:
    """Read both answers.

    A single letter after a number is a unit if the other side has a unit, or if the reference is a number.
    """
    left, right = read(found), read(reference)
    if left[2] is None and right[2] is not None:
        left = read(found, single_letters=True)
    elif right[2] is None and left[2] is not None and left[1]:
        right = read(reference, single_letters=True)
    return left, right


def _equal_percent(found: str, reference: str, tolerance: Tolerance) -> bool | None:
    """Equality if exactly one side is in percent: as a share or its hundredfold; None otherwise."""
    left, right = _PERCENT.fullmatch(found), _PERCENT.fullmatch(reference)
    if (left is None) is (right is None):
        return None
    share, other = (left["share"], reference) if left is not None else (right["share"] if right else "", found)
    values = [read(text)[2] for text in (share, other)]
    if values[0] is None or values[1] is None:
        return None
    hundredth = Number(values[0].value / 100, values[0].is_decimal)
    return any(_equal_numbers(each, values[1], tolerance) for each in (values[0], hundredth))


def _equal_bases(found: str, reference: str) -> bool | None:
    """Equality of numbers with bases; a base may be missing, but must not differ."""
    left, right = read_base(found), read_base(reference)
    if left is None and right is None:
        return None
    if left is not None and right is not None:
        return left == right
    digits, other = (left[0], reference) if left is not None else (right[0] if right else "", found)
    return digits == (re.sub(r"[\s,()$]|\\text\{|\}", "", other).upper().lstrip("0") or "0")


def _equal_numbers(left: Number, right: Number, tolerance: Tolerance) -> bool:
    difference = abs(left.value - right.value)
    if difference <= max(Fraction(tolerance.absolute), Fraction(tolerance.relative) * abs(right.value)):
        return True
    if left.is_decimal is right.is_decimal or 1 in (left.value.denominator, right.value.denominator):
        return False
    # A decimal may stand for a fraction if it is right to six places and by share, which matters for small numbers.
    rounded = round(left.value, DECIMAL_PLACES) == round(right.value, DECIMAL_PLACES)
    return rounded and difference <= Fraction(SIGNIFICANT) * abs(right.value)


_NUMERAL = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,300})(?:\.\d{1,100})?", re.ASCII)
_OR = re.compile(r"\bor\b|\\lor(?![a-z])")
_PERCENT = re.compile(r"(?P<share>.+?)\s*\\?%")
_MAY_BE_A_SET = re.compile(
    r"<|>|\\(?:le|ge|ne|emptyset|setminus|mathbb)(?![a-z])|\\\{\s*(?:\\\}|[A-Za-z]\s*(?:\\in|\||:))|\][^\[\]]*\[|^\[[^\[\]]*\[$|^\][^\[\]]*\]$|(?i:\b(?:all real|all reals|no |empty set))"
)


def _unit_words(unit: str) -> str:
    return re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", unit.strip("$ "))
