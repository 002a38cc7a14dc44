"""Settings of the problems: where they are and how their rows are read."""

from typing import Literal

from pydantic import Field

from offsft.strict import Strict


class Fields(Strict):
    problem: str = "problem"
    """Field that holds the problem's text."""
    solution: str = "solution"
    """Field that holds the expert's worked solution."""
    answer: str | None = None
    """Field that holds the reference answer; unset: it is taken from the solution's last `\\boxed{}`."""
    choices: str | None = None
    """Field that holds the list of choices, which are put below the problem as A, B, ...; the answer may be a letter, a number from 0 or a choice's text. For `domain: choice`."""
    tests: str | None = None
    """Field that holds the Python tests of the code (text, or a list of statements). For `domain: code`."""
    check: str | None = None
    """Field that holds what the verifier needs beside the answer, an object (docs/verifiers.md)."""


class ProblemRows(Strict):
    """What training problems and held-out problems have in common."""

    path: str | list[str] = "generated"
    """Problem files (JSONL or Parquet; local or s3://; a file, a folder, or a list), or `generated` for the demo's problems."""
    format: Literal["own", "gsm8k", "math", "numina"] = "own"
    """How rows are read: `own` by `fields`, or the layout of a public data set."""
    fields: Fields = Fields()
    """Field names for `format: own`."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many valid problems; unset: all."""

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Data(ProblemRows):
    generated_problems: int = Field(default=96, ge=1)
    """Number of problems that `path: generated` makes."""
    generated_seed: int = 0
    """Seed of the generated problems."""
    exclude_suites: list[str] = []
    """Leave out problems that these suites hold too (names or files as in `evaluate.suites`), so that training does not see them."""
    exclude_words: int = Field(default=8, ge=1)
    """Length of the sequences of words that are compared for `exclude_suites`."""
    exclude_share: float = Field(default=0.5, gt=0, le=1)
    """A problem is left out when it holds at least this share of the sequences of a suite's problem."""
