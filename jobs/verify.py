"""python -m jobs.verify [RECIPE.yaml] path=CASES.jsonl [verify.kind=... key=value ...]

Judge your own responses, and report for each the answer found and the reason for its verdict. A row of the file
(path=- reads standard input) is an object:

    {"id": 1, "verifier": "math", "response": "So \\boxed{7}.", "answer": "7", "check": {}}

`verifier` is by default verify.kind, `check` takes what docs/verifiers.md lists. Prints one line per row, in order:

    {"id": 1, "outcome": "correct", "extracted": "7", "where": "box", "why": "equal"}

A chain of verifiers (verify.kind=[math,judge], or a list in the row) adds "opinions", what each that was asked said.
A row that cannot be read has the outcome `error`, and `why` says what is wrong. Exits with 1 if no row can be read.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from offsft.errors import ConfigError, DataError

from .cli import find_recipe, run_on_stdout

if TYPE_CHECKING:
    from offsft.config import VerifyConfig


def _verify(path: Path | None, arguments: list[str]) -> None:
    import asyncio

    from offsft.config.loading import load

    paths = [argument.removeprefix("path=") for argument in arguments if argument.startswith("path=")]
    overrides = [argument for argument in arguments if not argument.startswith("path=")]
    if not paths or not paths[-1]:
        raise ConfigError("path is not set; add path=CASES.jsonl, or path=- for standard input")
    recipe = load(find_recipe(str(path)) if path else None, [*([] if path else ["run=runs/verify"]), *overrides])
    if paths[-1] == "-":
        asyncio.run(_print_verdicts(sys.stdin.readline, recipe.verify, "standard input"))
        return
    try:
        with Path(paths[-1]).open(encoding="utf-8", errors="replace") as rows:
            asyncio.run(_print_verdicts(rows.readline, recipe.verify, paths[-1]))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"path={paths[-1]} cannot be read: {error.strerror}; give a JSONL file of cases") from None


async def _print_verdicts(lines: "Callable[[], str]", settings: "VerifyConfig", name: str) -> None:
    import json

    from offsft.verify.cases import judge_lines

    read = 0
    async for judged in judge_lines(lines, settings):
        read += judged.is_case
        text = json.dumps(judged.row, ensure_ascii=False)
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    if not read:
        raise DataError(f"{name} holds no row that can be judged")


if __name__ == "__main__":
    run_on_stdout(_verify, str(__doc__))
