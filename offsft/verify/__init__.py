"""Verifiers, each behind `offsft.protocols.Verifier`."""

import importlib
import inspect
from typing import Any, Protocol

from offsft.config import Verify
from offsft.errors import ConfigError
from offsft.protocols import Verdict, Verifier
from offsft.records import Problem
from offsft.verify.pool import VerifierPool

_CLASSES = {
    "math": "offsft.verify.math:MathJudge",
    "numeric": "offsft.verify.numeric:NumericJudge",
    "choice": "offsft.verify.choice:ChoiceJudge",
    "exact": "offsft.verify.text:ExactJudge",
    "regex": "offsft.verify.text:RegexJudge",
    "json": "offsft.verify.json_values:JsonJudge",
    "code": "offsft.verify.code:CodeVerifier",
    "judge": "offsft.verify.model_judge:ModelJudge",
}


class OpenVerifier(Verifier, Protocol):
    """A verifier with what it holds: `async with`, or `close()`."""

    async def __aenter__(self) -> "OpenVerifier": ...

    async def __aexit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


def open_verifier(settings: Verify) -> OpenVerifier:
    """The verifier of a recipe; what it holds starts with it and ends with `close()`.

    Its class is made with the settings. A class with a plain `__call__` is a `Judge` and runs in a pool of processes;
    one with an asynchronous `__call__` and `close` is a verifier as it is.

    Raises:
        ConfigError: the class cannot be found, or what it needs is not there.
    """
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


class _Held:
    """A user's asynchronous verifier with the parts of an OpenVerifier that it may lack."""

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
    module, _, name = _CLASSES.get(kind, kind).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"verify.kind={kind}: {error}; the module must be importable wherever an engine runs (on PYTHONPATH, or in"
            " the working folder of the job)"
        ) from None
    except AttributeError:
        raise ConfigError(f"verify.kind={kind}: the module {module} has no class {name}") from None
    if not inspect.isclass(found) or "__call__" not in dir(found):
        raise ConfigError(f"verify.kind={kind}: {name} is not a class with a __call__ (response, problem) -> Verdict")
    return found
