"""Settings of the problems: where they are and how their rows are read."""

from typing import Annotated, Literal

from pydantic import Field

from offsft.config.base import FREE, PathText, Strict

Format = Literal[
    "own",
    "auto",
    "gsm8k",
    "math",
    "numina",
    "chat",
    "alpaca",
    "completion",
    "verl",
    "svamp",
    "asdiv",
    "mmlu",
    "mmlu_pro",
    "gpqa",
    "arc",
    "aqua",
    "humaneval",
    "mbpp",
    "mbpp_plus",
    "kodcode",
    "livecodebench",
    "apps",
]
"""How rows are read: by `fields`, by the layout of a public data set, or by the layout that the rows show."""
AnswerIs = Literal["letter", "text", "index", "position"]
"""What the answer field says of a choice: its letter, its text, its number from 0 or its number from 1."""


class Fields(Strict):
    """Names of fields. A name may be a path (`reward_model.ground_truth`, `solutions[0].text`)."""

    problem: str | list[str] = "problem"
    """Field that holds the problem's text; several are joined, and `{Body} {Question}` is a template of fields."""
    solution: str | list[str] = "solution"
    """Field that holds the expert's worked solution. Held-out problems need none."""
    answer: str | None = None
    """Field that holds the reference answer; unset, or empty in a row: it is the final answer of the solution."""
    choices: str | list[str] | None = None
    """Field that holds the choices, or a list of fields with one each; they are put below the problem as A, B, .... If the answer's field is one of them, their order is drawn by the problem's text. For `domain: choice`."""
    answer_is: AnswerIs | None = None
    """What the answer says of the choices: `letter`, `text`, `index` (from 0) or `position` (from 1); unset: decided by the field's type and the whole column, and refused where two readings stand."""
    tests: str | None = None
    """Field that holds the Python tests of the code (text, or a list of statements or of cases); unset: the names of public data sets (`test`, `test_list`, `input_output`, ...). For `domain: code`."""
    check: str | None = None
    """Field that holds an object with what the verifier needs in addition to the answer (docs/verifiers.md)."""


class ProblemRows(Strict):
    """Settings that training problems and held-out problems share."""

    path: PathText | list[PathText] = "generated"
    """Problem files (JSON, JSONL, CSV, TSV, Parquet or Arrow; also compressed): a file, a folder, a pattern such as `data/*.jsonl` or a list of these, on a disk or s3://; `hf://owner/name` for a Hugging Face data set; or `generated` for the demo's problems."""
    split: str | None = None
    """Split to read where file names tell splits apart, such as `train`; unset: a folder with several is refused."""
    files: list[str] = []
    """Patterns of the files to read in a folder, such as `[train-*.parquet]`; empty: all its data files, by their endings."""
    format: Format = "own"
    """How rows are read: `own` by `fields`, `auto` by the layout that the rows show, or by the name of a public layout (docs/data.md)."""
    fields: Fields = Fields()
    """Field names for `format: own`; with `auto`, those that are set replace the recognised ones."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of valid problems, taken in order; unset: all."""

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class DataConfig(ProblemRows):
    generated_problems: int = Field(default=96, ge=1)
    """Number of problems that `path: generated` makes."""
    generated_seed: int = 0
    """Seed of the generated problems."""
    on_change: Annotated[Literal["refuse", "add"], FREE] = "refuse"
    """If the files at `path` have changed since the run took them in: end with an error, or `add` the new problems and rewrite them too. Problems already taken in stay."""
    exclude_suites: list[PathText] = []
    """Suites (names or files as in `evaluate.suites`) whose problems are left out of training."""
    exclude_words: int = Field(default=8, ge=1)
    """Length of the word sequences that are compared for `exclude_suites`."""
    exclude_share: float = Field(default=0.5, gt=0, le=1)
    """A problem is left out if it contains at least this share of the word sequences of a suite's problem."""
