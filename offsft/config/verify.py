"""Settings of the verifier: those that all kinds share, and a section for each kind with further settings."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from offsft.config.base import FREE, Affects, PathText, Strict
from offsft.config.class_path import is_class_path
from offsft.errors import ConfigError

KINDS = ("math", "numeric", "choice", "exact", "regex", "json", "code", "ifeval", "judge")


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
    """Maximum number of concurrent processes and threads per solution."""
    file_mb: int = Field(default=16, ge=1)
    """Maximum size of the files that a solution writes, MiB; they are in memory and deleted afterwards."""
    value_mb: int = Field(default=8, ge=1)
    """Largest value that a solution may pass to a test, MiB."""
    packages: tuple[str, ...] = ()
    """Installed packages that solutions and tests may import, such as numpy; their dependencies come with them. The
    standard library is always available."""


class Ifeval(Strict):
    loose: bool = False
    """Whether an instruction also counts as followed without the response's first line, last line or asterisks."""


class JudgeConfig(Strict):
    url: str = "http://127.0.0.1:8000/v1"
    """Address of an OpenAI-compatible server."""
    model: str | None = None
    """Name of the judging model on that server; needed with `verify.kind=judge`."""
    key_variable: Annotated[str, FREE] = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is never a setting. Unset there: no key is sent."""
    rubric: str = "The response is correct if its final answer means the same as the reference answer."
    """Criterion for a correct response, in words; a problem's own `check.rubric` replaces it."""
    tries: Annotated[int, FREE] = Field(default=4, ge=1)
    """Attempts per request before the outcome is `error`."""
    timeout_s: Annotated[float, FREE] = Field(default=60.0, gt=0)
    """Longest wait for one reply, seconds."""
    cache: Annotated[PathText | None, FREE] = None
    """Folder that caches judgements, so that none is requested twice; unset: no cache."""

    @field_validator("cache")
    @classmethod
    def _absolute(cls, cache: str | None) -> str | None:
        # Engines run in processes with other working directories.
        return None if cache is None else str(Path(cache).resolve())


class VerifyConfig(Strict):
    kind: Annotated[
        Literal["math", "numeric", "choice", "exact", "regex", "json", "code", "ifeval", "judge"]
        | str
        | tuple[str, ...],
        Affects("rewrite", "evaluate"),
    ] = "math"
    """Kind of verifier (docs/verifiers.md), or a class of yours: `mypackage.module:MyVerifier`. A list such as `[math, judge]` is a chain: each is asked where those before say no."""
    timeout_s: Annotated[float, FREE] = Field(default=5.0, gt=0)
    """Time limit per response, seconds; the process that exceeds it is killed."""
    memory_mb: Annotated[int, FREE] = Field(default=1024, ge=256)
    """Memory limit per verifying process, MiB."""
    workers: Annotated[int, FREE] = Field(default=1, ge=1)
    """Verifying processes (or concurrent requests) per engine."""
    tolerance: Tolerance = Tolerance()
    """For `math` and `numeric`; a problem's own `check` replaces it."""
    exact: Exact = Exact()
    """For `exact`."""
    regex: Regex = Regex()
    """For `regex`."""
    code: Code = Code()
    """For `code`."""
    ifeval: Ifeval = Ifeval()
    """For `ifeval`."""
    judge: JudgeConfig = JudgeConfig()
    """For `judge`."""
    options: dict[str, Any] = {}
    """For a class of yours, which reads them."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the order in which they are asked; one unless it is a chain."""
        return (self.kind,) if isinstance(self.kind, str) else self.kind

    @property
    def label(self) -> str:
        """The kind as one word, for rows and answers: `math`, and `math > judge` for a chain."""
        return " > ".join(self.kinds)

    def of_kind(self, kind: str | tuple[str, ...]) -> "VerifyConfig":
        """The same settings for another kind.

        Raises:
            ConfigError: the kind is not known.
        """
        return VerifyConfig.model_validate({**self.model_dump(), "kind": kind})

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str | tuple[str, ...]) -> str | tuple[str, ...]:
        kinds = (kind,) if isinstance(kind, str) else kind
        for each in kinds:
            if each not in KINDS and not is_class_path(each):
                raise ConfigError(
                    f"verify.kind={each!r} is none of {', '.join(KINDS)}, and no class of yours"
                    " (mypackage.module:MyVerifier)"
                )
        if not kinds or len(set(kinds)) < len(kinds):
            raise ConfigError(
                f"verify.kind={list(kinds)} is no chain; name each verifier once, the first one first: [math, judge]"
            )
        return kinds[0] if len(kinds) == 1 else kind
