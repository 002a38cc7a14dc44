"""`verify.kind=ifeval`: the response follows all instructions of its row, as IFEval (arXiv 2311.07911) checks them.

The checkers are those that its authors published, in the package if-verifiable. A judge downloads nothing: what two of
them need of NLTK must be there.
"""

import importlib.util
import random
from typing import Any

from offsft.config import VerifyConfig
from offsft.errors import ConfigError
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify.thoughts import without_thoughts

_PACKAGES = ("if_verifiable", "langdetect", "nltk")
_SENTENCES = "tokenizers/punkt_tab/english/"
_EXTRACTED_CHARACTERS = 300


class IfevalJudge:
    """Judges by `check.instruction_id_list` and `check.kwargs`, as google/IFEval publishes them; all must be followed.

    With `verify.ifeval.loose` an instruction also counts as followed without the response's first line, last line or
    asterisks.

    Raises:
        ConfigError: the checkers, or NLTK's data for sentences, are not installed here.
    """

    warm_up = (
        "This answer has one sentence.",
        Problem(
            id="",
            problem="",
            solution="",
            answer="",
            check={
                "instruction_id_list": ["length_constraints:number_sentences", "language:response_language"],
                "kwargs": [{"num_sentences": 1, "relation": "at least"}, {"language": "en"}],
            },
        ),
    )

    def __init__(self, settings: VerifyConfig) -> None:
        self.check_installed()
        self._loose = settings.ifeval.loose

    @staticmethod
    def check_installed() -> None:
        """Check that the checkers and the data that they need are installed here.

        Raises:
            ConfigError: they are not; says what to install.
        """
        if any(importlib.util.find_spec(name) is None for name in _PACKAGES):
            raise ConfigError(
                "verify.kind=ifeval needs the package if-verifiable, which is not installed here; install it on every"
                " node that holds an engine: pip install if-verifiable"
            )
        import nltk

        try:
            nltk.data.find(_SENTENCES)
        except LookupError:
            raise ConfigError(
                "verify.kind=ifeval needs NLTK's data punkt_tab, which is not here, and which no job downloads; get it on"
                " every node that holds an engine: python -m nltk.downloader punkt_tab (or, without a network, unpack"
                " punkt_tab.zip into tokenizers/ of the folder that NLTK_DATA names)"
            ) from None

    def __call__(self, response: str, problem: Problem) -> Verdict:
        answer = without_thoughts(response).strip()
        if not answer:
            return Verdict(Outcome.NO_ANSWER, why="the response is empty")
        try:
            check = read_instructions(problem.check)
            followed = _followed(answer, problem.problem, check, loose=self._loose)
        except ValueError as error:
            return Verdict(Outcome.ERROR, why=" ".join(str(error).split())[:200])
        names = check["instruction_id_list"]
        missed = [name for name, was_followed in zip(names, followed, strict=True) if not was_followed]
        why = f"not followed: {', '.join(missed)}" if missed else f"{len(names)} of {len(names)} instructions followed"
        outcome = Outcome.WRONG if missed else Outcome.CORRECT
        return Verdict(outcome, answer[:_EXTRACTED_CHARACTERS], "response", why[:200])


def read_instructions(check: dict[str, Any]) -> dict[str, Any]:
    """`instruction_id_list` and `kwargs` of a row, without the arguments that are null (the hub's rows hold all names).

    Raises:
        ValueError: they are not a list of names and a list of as many objects.
    """
    names, arguments = check.get("instruction_id_list"), check.get("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("instruction_id_list is not a list of names of instructions")
    if not isinstance(arguments, list) or not all(isinstance(each, dict) or each is None for each in arguments):
        raise ValueError("kwargs is not a list of objects, one for each instruction")
    if len(arguments) != len(names):
        raise ValueError(f"{len(names)} instructions have {len(arguments)} objects in kwargs")
    given = [{name: value for name, value in (each or {}).items() if value is not None} for each in arguments]
    return {"instruction_id_list": names, "kwargs": given}


def _followed(answer: str, prompt: str, check: dict[str, Any], *, loose: bool) -> list[bool]:
    """Whether each instruction is followed.

    Raises:
        ValueError: an instruction is not known, or lacks an argument.
    """
    from if_verifiable import IFEvalSample, evaluate_output_for_sample
    from if_verifiable.ifeval import INSTRUCTION_DICT
    from langdetect import DetectorFactory

    names, arguments = check["instruction_id_list"], check["kwargs"]
    for name, given in zip(names, arguments, strict=True):
        _check_arguments(name, given, INSTRUCTION_DICT)
    # Language detection draws at random, and so does a checker that cannot use an argument: a verdict is always the same.
    DetectorFactory.seed = 0
    random.seed(0)
    sample = IFEvalSample(key=0, prompt=prompt, instruction_id_list=names, kwargs=arguments)
    results, _ = evaluate_output_for_sample("ifeval", sample, answer)
    return [each.loose_pass if loose else each.strict_pass for each in results]


def _check_arguments(name: str, given: dict[str, Any], checkers: dict[str, Any]) -> None:
    """Refuse what the package would leave out (a name that it does not know) or draw at random (a missing argument).

    Raises:
        ValueError: it would.
    """
    if name not in checkers:
        raise ValueError(f"there is no instruction {name!r}; is this a row of another benchmark?")
    checker = checkers[name](name)
    try:
        checker.build_description(**given)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the arguments of {name} are not its own: {error}") from None
    missing = sorted(set(checker.get_instruction_args() or {}) - set(given))
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)} in kwargs")
