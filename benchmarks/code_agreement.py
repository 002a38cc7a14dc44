"""Agreement of the code verifier with reference solutions, and with wrong ones.

`python -m benchmarks.code_agreement FILE` (humaneval.jsonl: `prompt`, `canonical_solution`, `test`, `entry_point`; or
MBPP: `code`, `test_list`, `test_setup_code`). The wrong solution of a row defines each of its functions, and returns 'wrong'.
Exits with 1 if a reference solution is judged not correct, or a wrong one correct.
"""

import argparse
import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from offsft.config import VerifyConfig
from offsft.records import Outcome, Problem

_CHECKED = ("test", "test_list", "test_setup_code", "entry_point", "prompt")
_FUNCTION = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


def reference_of(row: dict[str, Any]) -> str:
    """The row's complete reference solution."""
    return row["prompt"] + row["canonical_solution"] if "canonical_solution" in row else row["code"]


def wrong_of(row: dict[str, Any]) -> str:
    """All functions of the solution, each returning 'wrong'."""
    names = dict.fromkeys(_FUNCTION.findall(reference_of(row)))
    return "\n".join(f"def {name}(*arguments, **named):\n    return 'wrong'\n" for name in names)


async def judge_all(rows: list[dict[str, Any]], settings: VerifyConfig) -> list[tuple[Any, Any]]:
    """The verdicts on the reference solution and on the wrong one, per row."""
    from offsft.verify import open_verifier

    async with open_verifier(settings) as verifier:

        async def judge(code: str, row: dict[str, Any]) -> Any:
            check = {name: row[name] for name in _CHECKED if row.get(name)}
            if "canonical_solution" not in row:
                check.pop("prompt", None)  # MBPP's is the problem's text
            return await verifier(f"```python\n{code}\n```", Problem("", "", "", "", check))

        pairs = [judge(code, row) for row in rows for code in (reference_of(row), wrong_of(row))]
        verdicts = await asyncio.gather(*pairs)
    return list(zip(verdicts[::2], verdicts[1::2], strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path, metavar="FILE", help="humaneval.jsonl or mbpp.jsonl")
    parser.add_argument("--workers", type=int, default=2, help="sandboxes at once (default 2)")
    arguments = parser.parse_args()
    if not arguments.path.is_file():
        parser.error(f"{arguments.path} is not a file; give the path of humaneval.jsonl or mbpp.jsonl")
    rows = [json.loads(line) for line in arguments.path.read_text(encoding="utf-8").splitlines() if line.strip()]
    settings = VerifyConfig(kind="code", timeout_s=30, workers=arguments.workers)
    judged = asyncio.run(judge_all(rows, settings))
    refused = [(line, right) for line, (right, _) in enumerate(judged, 1) if right.outcome is not Outcome.CORRECT]
    accepted = [(line, wrong) for line, (_, wrong) in enumerate(judged, 1) if wrong.outcome is Outcome.CORRECT]
    print(
        f"{len(rows) - len(refused)} of {len(rows)} reference solutions correct, {len(accepted)} of {len(rows)} wrong ones"
    )
    for line, verdict in refused + accepted:
        print(f"  line {line}: {verdict.outcome}: {verdict.why}")
    return 1 if refused or accepted else 0


if __name__ == "__main__":
    sys.exit(main())
