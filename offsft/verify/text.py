"""`verify.kind=exact` and `regex`: the final answer as a text."""

import re
import unicodedata

from offsft.config import Verify
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.math import located_answer

_ARTICLE = re.compile(r"^(?:a|an|the)\s+", re.IGNORECASE)
_AS_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


def normalised(text: str, *, ignore_case: bool = True, ignore_punctuation: bool = True) -> str:
    """A text blind to Unicode form, white space and LaTeX's `\\text{}`, and to case and punctuation where asked."""
    text = _AS_TEXT.sub(r"\1", unicodedata.normalize("NFKC", text))
    if ignore_case:
        text = text.casefold()
    if ignore_punctuation:
        # A sign or a point within a number is no punctuation.
        text = re.sub(r"[^\w\s.+-]|(?<!\d)[.](?!\d)|\.(?!\d)|(?<=\w)-(?=\w)", " ", text).replace("_", " ")
        text = _ARTICLE.sub("", text.strip())
    return " ".join(text.split())


class ExactJudge:
    """The final answer, or the last line where none is marked, is `answer` or one of `check.answers`."""

    def __init__(self, settings: Verify) -> None:
        self._settings = settings.exact

    def __call__(self, response: str, problem: Problem) -> Verdict:
        found, where = text_answer(response)
        if found is None:
            return Verdict(Outcome.NO_ANSWER, why="the response is empty")
        answers = [problem.answer, *problem.check.get("answers", [])]
        options = self._settings.model_dump()
        correct = normalised(found, **options) in {normalised(answer, **options) for answer in answers}
        outcome, why = (Outcome.CORRECT, "the same") if correct else (Outcome.WRONG, f"not {answers[0][:150]!r}")
        return Verdict(outcome, found[:300], where, why)


class RegexJudge:
    """`answer` is a Python pattern; the pool's time limit is the limit of its matching too."""

    def __init__(self, settings: Verify) -> None:
        self._whole = settings.regex.whole

    def __call__(self, response: str, problem: Problem) -> Verdict:
        found, where = text_answer(response)
        if found is None:
            return Verdict(Outcome.NO_ANSWER, why="the response is empty")
        try:
            pattern = re.compile(problem.answer)
        except re.error as error:
            return Verdict(Outcome.ERROR, found[:300], where, f"the pattern {problem.answer[:80]!r} is wrong: {error}")
        match = pattern.fullmatch(found) if self._whole else pattern.search(found)
        if match is None:
            return Verdict(Outcome.WRONG, found[:300], where, "no match")
        return Verdict(Outcome.CORRECT, found[:300], where, f"matches at {match.start()} to {match.end()}")


def text_answer(response: str) -> tuple[str | None, str]:
    """The final answer and where it stood; without a mark it is the last line that is not empty."""
    found, where = located_answer(response)
    if found is not None:
        return found, where
    lines = response[-20_000:].strip().splitlines()
    return (lines[-1].strip() or None, "last line") if lines else (None, "")
