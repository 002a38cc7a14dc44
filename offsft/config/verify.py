"""Settings of the verifier: what all kinds share, and a section for each kind that has settings of its own."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from offsft.errors import ConfigError
from offsft.strict import Strict

KINDS = ("math", "numeric", "choice", "exact", "regex", "json", "code", "judge")
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Tolerance(Strict):
    absolute: float = Field(default=0.0, ge=0)
    """Numbers that differ by no more than this are equal, in the answer's unit."""
    relative: float = Field(default=0.0, ge=0, lt=1)
    """The same as a share of the reference answer: 0.01 is one percent."""


class Exact(Strict):
    ignore_case: bool = True
    """Whether `Paris` and `paris` are the same."""
    ignore_punctuation: bool = True
    """Whether punctuation and the articles a, an, the at the beginning are left out of the comparison."""


class Regex(Strict):
    whole: bool = False
    """Whether the pattern (the problem's answer) must match the whole final answer, not a part of it."""


class Code(Strict):
    processes: int = Field(default=16, ge=2)
    """Most processes and threads of one solution at once."""
    file_mb: int = Field(default=16, ge=1)
    """Most that a solution can write, MiB; its files are in memory and gone afterwards."""
    value_mb: int = Field(default=8, ge=1)
    """Longest value that a solution may hand to a test, MiB."""


class Judge(Strict):
    url: str = "http://127.0.0.1:8000/v1"
    """Address of an OpenAI-compatible server."""
    model: str | None = None
    """Name of the judging model on that server; needed with `verify.kind=judge`."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is never a setting. Unset there: no key is sent."""
    rubric: str = "The response is correct if its final answer means the same as the reference answer."
    """What makes a response correct, in words; a problem's own `check.rubric` replaces it."""
    tries: int = Field(default=4, ge=1)
    """How often a request is made before the outcome is `error`."""
    timeout_s: float = Field(default=60.0, gt=0)
    """Longest wait for one reply, seconds."""
    cache: str | None = None
    """Folder of the judgements made so far, which are not asked for again; unset: none is kept."""

    @field_validator("cache")
    @classmethod
    def _absolute(cls, cache: str | None) -> str | None:
        # Engines run in processes with folders of their own.
        return None if cache is None else str(Path(cache).resolve())


class Verify(Strict):
    kind: Literal["math", "numeric", "choice", "exact", "regex", "json", "code", "judge"] | str = "math"
    """How responses are judged (docs/verifiers.md), or a class of yours: `mypackage.module:MyVerifier`."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Limit for one response, seconds; the process that exceeds it is killed."""
    memory_mb: int = Field(default=1024, ge=256)
    """Limit for one verifying process, MiB."""
    workers: int = Field(default=1, ge=1)
    """Verifying processes (or requests at once) beside each engine."""
    tolerance: Tolerance = Tolerance()
    """Of `math` and `numeric`; a problem's own `check` replaces it."""
    exact: Exact = Exact()
    """Of `exact`."""
    regex: Regex = Regex()
    """Of `regex`."""
    code: Code = Code()
    """Of `code`."""
    judge: Judge = Judge()
    """Of `judge`."""
    options: dict[str, Any] = {}
    """Of a class of yours, which reads them."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS and not _OWN.fullmatch(kind):
            raise ConfigError(
                f"verify.kind={kind!r} is none of {', '.join(KINDS)}, and no class of yours"
                " (mypackage.module:MyVerifier)"
            )
        return kind
