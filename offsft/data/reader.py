"""How the rows of some files are read: the layout that `format: auto` finds, and what a column of choices says."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from offsft.config import Domain, Fields, ProblemRows
from offsft.data.choices import Column, column_of
from offsft.data.files import read_rows
from offsft.data.formats import parse
from offsft.data.layouts import LAYOUTS, fields_of, recognise
from offsft.data.rows import RawRow, Rejected, Unusable, decode
from offsft.data.values import has
from offsft.errors import ConfigError
from offsft.records import Problem

_LOOKED_AT = 200
"""Rows that `format: auto` looks at."""
_USUAL_NAMES = {
    "problem": ("problem", "question", "query", "prompt", "instruction", "problem_statement", "input"),
    "solution": ("solution", "response", "output", "completion", "rationale", "reasoning", "generated_solution"),
    "answer": ("answer", "final_answer", "expected_answer", "ground_truth", "target", "label"),
}
"""Names that many data sets use, for those of no known layout."""
_NUMBERS = {"index": "numbers from 0", "position": "numbers from 1", "letter": "letters", "text": "texts"}


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads the rows of files of one layout; `why` says in words how, and why so."""

    form: str
    fields: Fields
    domain: Domain
    held_out: bool
    column: Column | None
    why: str

    def parse(self, row: RawRow) -> Problem | Rejected:
        """The problem of a row, or its rejection."""
        return parse(row, self.form, self.fields, self.domain, held_out=self.held_out, column=self.column)


def find_reader(rows: ProblemRows, files: list[str], domain: Domain, *, held_out: bool, setting: str) -> RowReader:
    """How the rows of the files are read, by the settings and by what the first rows show.

    Answers of choices are looked at in all rows, since only the whole column tells numbers from 0 and from 1 apart.

    Raises:
        ConfigError: `format: auto` knows no such layout, or the format is one of another domain.
    """
    section = setting.partition(".")[0]
    form, fields, why = rows.format, rows.fields, f"{section}.format={rows.format}"
    if form == "auto":
        form, fields, why = _recognised(rows, files, domain, section)
    elif form in LAYOUTS and LAYOUTS[form].domain != domain and LAYOUTS[form].domain != "math":
        raise ConfigError(f"{section}.format={form} has problems of another kind; set domain={LAYOUTS[form].domain}")
    column, read = None, fields_of(form, fields)
    if domain == "choice" and read.choices is not None and read.answer is not None and read.answer_is is None:
        column = column_of(_objects(files), read)
        why += f"; answers that are {_described(column)}" if column.numbers or column.texts else ""
    return RowReader(form, fields, domain, held_out, column, why)


def _described(column: Column) -> str:
    told = []
    if column.numbers:
        told.append(f"numbers count from {0 if column.numbers == 'index' else 1}")
    if column.texts:
        told.append(f"texts are {_NUMBERS[column.texts]}")
    return ", ".join(told)


def _recognised(rows: ProblemRows, files: list[str], domain: Domain, section: str) -> tuple[str, Fields, str]:
    first = list(islice(_objects(files), _LOOKED_AT))
    if not first:
        return "own", rows.fields, f"{section}.format=auto: no row can be read"
    set_by_user = {name: getattr(rows.fields, name) for name in rows.fields.model_fields_set}
    recognised = recognise(first, domain)
    if recognised is not None:
        form, fitting = recognised
        needs = ", ".join(LAYOUTS[form].needs)
        why = (
            f"{'all' if fitting == len(first) else fitting} of the first {len(first)} rows have {needs}, as {form} has"
        )
        if not set_by_user:
            return form, rows.fields, why
        known = LAYOUTS[form].fields
        answer = known.answer if known.answer and has(first[0], known.answer) else None
        fields = known.model_copy(update={"answer": answer} | set_by_user)
        return "own", fields, f"{why}; {', '.join(set_by_user)} as set"
    if another := _of_another_domain(first, domain, section):
        raise ConfigError(another)
    # A row without a problem or a solution is refused, and hides the others' layout as little as any broken row. An answer's
    # field that some rows lack would refuse them: there each answer is read from the solution.
    shares = {"problem": 0.5, "solution": 0.5, "answer": 1.0}
    names = {name: _usual(first, candidates, shares[name]) for name, candidates in _USUAL_NAMES.items()}
    found = {name: field for name, field in names.items() if field} | set_by_user
    if "problem" in found and ("solution" in found or "answer" in found) and domain in ("math", "free"):
        told = ", ".join(f"{name} from {field!r}" for name, field in found.items())
        return "own", Fields.model_validate(found), f"no known layout, but fields with usual names: {told}"
    raise ConfigError(_unknown(first, domain, section))


def _usual(rows: list[dict[str, Any]], candidates: Iterable[str], share: float) -> str | None:
    """The first candidate that at least this share of the rows have."""
    return next((name for name in candidates if sum(has(row, name) for row in rows) >= share * len(rows)), None)


def _of_another_domain(rows: list[dict[str, Any]], domain: Domain, section: str) -> str | None:
    others: tuple[Domain, ...] = ("choice", "code") if domain in ("math", "free") else ("math", "choice", "code")
    for other in others:
        form = recognise(rows, other) if other != domain else None
        if form is not None:
            return f"{section}.format=auto: the rows look like {form[0]}, and domain={domain}; set domain={other}"
    return None


def _unknown(rows: list[dict[str, Any]], domain: Domain, section: str) -> str:
    names = ", ".join(sorted({str(name) for row in rows[:20] for name in row})[:20])
    return (
        f"{section}.format=auto: no layout of domain={domain} is known with these fields: {names}; name them with"
        f" {section}.fields.problem=..., .solution=... and .answer=..."
    )


def _objects(files: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of the files that are objects; the others are refused when they are parsed."""
    for file in files:
        for _, raw in read_rows(file):
            try:
                yield decode(raw)
            except Unusable:
                continue
