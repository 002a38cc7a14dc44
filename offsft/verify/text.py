"""`verify.kind=exact` and `regex`: the final answer as text."""

import re
import unicodedata

from offsft.config import VerifyConfig
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.answer import TAIL_CHARACTERS, located_answer
from offsft.verify.thoughts import without_thoughts

_ARTICLE = re.compile(r"^(?:a|an|the)\s+", re.IGNORECASE)
_AS_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


def normalise(text: str, *, ignore_case: bool = True, ignore_punctuation: bool = True) -> str:
    """Remove differences of Unicode form, white space and LaTeX's `\\text{}`, and optionally case and punctuation."""
    text = _AS_TEXT.sub(r"\1", unicodedata.normalize("NFKC", text))
    if ignore_case:
        text = text.casefold()
    if ignore_punctuation:
        # A sign or a point within a number is not punctuation.
        text = re.sub(r"[^\w\s.+-]|(?<!\d)[.](?!\d)|\.(?!\d)|(?<=\w)-(?=\w)", " ", text).replace("_", " ")
        text = _ARTICLE.sub("", text.strip())
    return " ".join(text.split())


_TEXT = re.compile(r"\\text\s*\{[^{}]*[A-Za-z]{2}|\\text\s*\{\s*\(?[A-Za-z]\)?\s*\}")
_KNOWN_WORDS = {"yes", "no", "true", "false", "odd", "even", "none", "all"}


def are_same_words(found: str, reference: str) -> bool:
    """Whether two answers in words, not mathematics, are equal except for case, `\\text{}` or a full stop."""
    if re.search(r"[=<>^+*/_]|\\(?!text|mathrm)[A-Za-z]", found + reference):
        return False
    worded = [
        _TEXT.search(text)
        or re.search(r"[^\W\d_]{4}|[^\W\d_]{2} [^\W\d_]{2}", text)
        or text.strip(" .").lower() in _KNOWN_WORDS
        for text in (found, reference)
    ]
    said = [normalise(text) for text in (found, reference)]
    if not any(worded) or not any(said):
        return False
    if len(said[0]) == 1:  # a letter is a variable, and a choice only if written as one
        said = [normalise(text, ignore_case=False) for text in (found, reference)]
    return said[0] == said[1]


class ExactJudge:
    """Correct if the final answer, or the last line if none is marked, is `answer` or one of `check.answers`."""

    def __init__(self, settings: VerifyConfig) -> None:
        self._settings = settings.exact

    def __call__(self, response: str, problem: Problem) -> Verdict:
        found, where = text_answer(response)
        if found is None:
            return Verdict(Outcome.NO_ANSWER, why="the response is empty")
        answers = [problem.answer, *problem.check.get("answers", [])]
        options = self._settings.model_dump()
        correct = normalise(found, **options) in {normalise(answer, **options) for answer in answers}
        outcome, why = (Outcome.CORRECT, "the same") if correct else (Outcome.WRONG, f"not {answers[0][:150]!r}")
        return Verdict(outcome, found[:300], where, why)


class RegexJudge:
    """Matches `answer`, a Python pattern; the pool's time limit also limits the matching."""

    def __init__(self, settings: VerifyConfig) -> None:
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
    """The final answer and its place; without a mark it is the last line that is not empty."""
    found, where = located_answer(response)
    if found is not None:
        return found, where
    lines = without_thoughts(response)[-TAIL_CHARACTERS:].strip().splitlines()
    return (lines[-1].strip() or None, "last line") if lines else (None, "")
