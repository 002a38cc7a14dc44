"""`verify.kind=numeric`: the final answer is a number within tolerance of the reference."""

from fractions import Fraction

from offsft.config import VerifyConfig
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.answer import located_answer
from offsft.verify.math import tolerance_of
from offsft.verify.quantity import compatible, read


class NumericJudge:
    """Judges numbers without symbolic mathematics: `1/3` and `3.3e-1` are numbers, `\\sqrt{2}` is not.

    Units must not differ. `50%` is 50, or 0.5 if that is nearer.
    """

    def __init__(self, settings: VerifyConfig) -> None:
        self._tolerance = settings.tolerance

    def __call__(self, response: str, problem: Problem) -> Verdict:
        found, where = located_answer(response)
        if found is None:
            return Verdict(Outcome.NO_ANSWER, why="neither a \\boxed{} nor a statement of the answer")
        tolerance = tolerance_of(problem, self._tolerance)
        reference, reference_unit = _numbers(problem.answer)
        if not reference:
            return Verdict(
                Outcome.ERROR, found[:300], where, f"the reference answer {problem.answer[:80]!r} is not a number"
            )
        values, unit = _numbers(found)
        if not values:
            return Verdict(Outcome.WRONG, found[:300], where, "no number")
        if not compatible(unit, reference_unit):
            return Verdict(
                Outcome.WRONG, found[:300], where, f"the unit is {' '.join(unit)}, not {' '.join(reference_unit)}"
            )
        difference, of = min((abs(value - wanted), abs(wanted)) for value in values for wanted in reference)
        allowed = max(Fraction(tolerance.absolute), Fraction(str(tolerance.relative)) * of)
        outcome = Outcome.CORRECT if difference <= allowed else Outcome.WRONG
        return Verdict(
            outcome,
            found[:300],
            where,
            f"{'within' if difference <= allowed else 'not within'} the tolerance of {problem.answer[:80]}",
        )


def _numbers(text: str) -> tuple[list[Fraction], tuple[str, ...]]:
    """The numbers that a text may mean (two for a percentage), and its unit."""
    bare, percent, _ = text.strip().strip("$").strip().rstrip(".").partition("%")
    _, unit, number = read(bare.rstrip("\\ ") if percent else text)
    if number is None:
        return [], unit
    return ([number.value, number.value / 100] if percent else [number.value]), unit
