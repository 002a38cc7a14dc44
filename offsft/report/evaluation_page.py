"""Writes evaluation.html: the table of an evaluation, and every answer to browse."""

import json
from typing import Any

from offsft.evaluate.table import change, columns, figures
from offsft.report.page import browse, render
from offsft.report.run_data import read_samples
from offsft.storage.paths import StoragePath, write_text_atomically


def write_evaluation_page(run: StoragePath) -> None:
    """Write `evaluation.html` into a run's folder from its `evaluation.json` and answers; the page needs no network.

    Raises:
        RunFolderError: a file of answers is broken.
    """
    table = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    models = list(dict.fromkeys(row["model"] for row in table["rows"]))
    suites = list(dict.fromkeys(row["suite"] for row in table["rows"]))
    page = render(
        "evaluation.html.j2",
        name=run.resolve().name,
        standfirst=_standfirst(table, models),
        columns=columns(table),
        rows=[row | {"figures": figures(row)} for row in table["rows"]],
        differences=[each | {"change": change(each)} for each in table["differences"]],
        browse=browse(read_samples(run / "evaluation", models, set(suites))),
    )
    write_text_atomically(run / "evaluation.html", page)


def _standfirst(table: dict[str, Any], models: list[str]) -> str:
    first = [row for row in table["rows"] if row["model"] == models[0]]
    samples = first[0]["samples"]
    return (
        f"{', '.join(models)} on {', '.join(row['suite'] for row in first if row['suite'] != 'mean of suites')};"
        f" {samples} sample{'s' if samples > 1 else ''} a problem."
    )
