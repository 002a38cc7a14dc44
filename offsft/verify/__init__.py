"""Verifiers, each behind `offsft.protocols.Verifier`."""

import inspect
from typing import Any

from offsft.config import VerifyConfig
from offsft.config.class_path import load_class
from offsft.errors import ConfigError
from offsft.protocols import Verdict
from offsft.records import Problem
from offsft.verify.chain import OpenVerifier, VerifierChain
from offsft.verify.model_judge import NEEDS_MODEL
from offsft.verify.pool import VerifierPool

_CLASSES = {
    "math": "offsft.verify.math:MathJudge",
    "numeric": "offsft.verify.numeric:NumericJudge",
    "choice": "offsft.verify.choice:ChoiceJudge",
    "exact": "offsft.verify.text:ExactJudge",
    "regex": "offsft.verify.text:RegexJudge",
    "json": "offsft.verify.json_values:JsonJudge",
    "code": "offsft.verify.code:CodeVerifier",
    "ifeval": "offsft.verify.ifeval:IfevalJudge",
    "judge": "offsft.verify.model_judge:ModelJudge",
}


def open_verifier(settings: VerifyConfig) -> OpenVerifier:
    """Open a recipe's verifier, or its chain of verifiers; `close()` releases its resources.

    Its class is instantiated with the settings. A class with a plain `__call__` is a `Judge` and runs in a pool of
    processes; one with an asynchronous `__call__` and `close` is a verifier as it is.

    Raises:
        ConfigError: the class cannot be found, or its requirements are missing.
    """
    if not isinstance(settings.kind, str):
        return _open_chain(settings)
    made = _class(settings.kind)(settings)
    if inspect.iscoroutinefunction(type(made).__call__):
        return made if hasattr(made, "__aexit__") else _Held(made)
    return VerifierPool(
        made,
        workers=settings.workers,
        timeout_s=settings.timeout_s,
        memory_mb=settings.memory_mb,
        warm_up=getattr(made, "warm_up", ("\\boxed{1}", Problem("", "", "", "1"))),
    )


def check_verifier(settings: VerifyConfig) -> None:
    """Check what can be checked without starting anything: each class, what it needs here, and that a judge has a model.

    Raises:
        ConfigError: a class cannot be found, or a package or a setting is missing.
    """
    for kind in settings.kinds:
        check_installed = getattr(_class(kind), "check_installed", None)
        if check_installed is not None:
            check_installed()
    if "judge" in settings.kinds and not settings.judge.model:
        raise ConfigError(NEEDS_MODEL)


def _open_chain(settings: VerifyConfig) -> VerifierChain:
    opened: list[tuple[str, OpenVerifier]] = []
    try:
        for kind in settings.kinds:
            opened.append((kind, open_verifier(settings.of_kind(kind))))
    except BaseException:
        VerifierChain(opened).close()
        raise
    return VerifierChain(opened)


class _Held:
    """Wraps a user's asynchronous verifier, adding the methods of an OpenVerifier that it may lack."""

    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    async def __aenter__(self) -> "_Held":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        return await self._verifier(response, problem)

    def close(self) -> None:
        close = getattr(self._verifier, "close", None)
        if close is not None:
            close()


def _class(kind: str) -> Any:
    found = load_class(_CLASSES.get(kind, kind), "verify.kind")
    if "__call__" not in dir(found):
        raise ConfigError(
            f"verify.kind={kind}: {found.__name__} is not a class with a __call__ (response, problem) -> Verdict"
        )
    return found
