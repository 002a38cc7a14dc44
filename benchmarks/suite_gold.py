"""Whether every suite's gold answers and reference solutions are correct by its own verifier: `python -m benchmarks.suite_gold FOLDER`.

It reads each built-in suite whose file is in FOLDER, whole, as an evaluation does, and judges the gold answer in a box or
the reference solution of each row. IFEval has neither: there it counts the rows that can be judged at all. Exits with 1 if
a row fails, or a file is refused.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.code_agreement import reference_of

if TYPE_CHECKING:
    from offsft.config import Suite, VerifyConfig
    from offsft.protocols import Verdict
    from offsft.records import Problem


def gold_responses(suite: "Suite", folder: Path) -> "Iterator[tuple[Problem, str]]":
    """Each problem of a suite with the response that its file gives as right.

    Raises:
        DataError: the file is not the whole benchmark, or a row cannot be read.
    """
    from offsft.config import ProblemRows
    from offsft.data.files import existing_files, read_rows
    from offsft.data.suites import load_suite

    problems = load_suite(suite, str(folder))
    if not suite.is_code:
        for problem in problems:
            yield problem, "A response." if suite.is_instructions else f"The answer is $\\boxed{{{problem.answer}}}$."
        return
    (file,) = existing_files(ProblemRows(path=str(folder / str(suite.file))), f"suite {suite.name}")
    for problem, (_, raw) in zip(problems, read_rows(file), strict=True):
        yield problem, f"```python\n{reference_of(json.loads(raw))}\n```"


def is_right(suite: "Suite", verdict: "Verdict") -> bool:
    """Whether the verdict on a gold response is as it must be; any but an error where there is no gold response."""
    from offsft.records import Outcome

    if suite.is_instructions:
        return verdict.outcome in (Outcome.CORRECT, Outcome.WRONG)
    return verdict.outcome is Outcome.CORRECT


async def judge_gold(
    suites: "Sequence[Suite]", folder: Path, settings: "VerifyConfig"
) -> "list[tuple[Suite, Problem, Verdict]]":
    """The verdicts on all gold responses of some suites, each by the suite's own verifier.

    Suites with the same settings share one.
    """
    from offsft.verify import open_verifier

    judged: list[tuple[Suite, Problem, Verdict]] = []
    for kind in dict.fromkeys(suite.verifier(settings).model_dump_json() for suite in suites):
        own = [suite for suite in suites if suite.verifier(settings).model_dump_json() == kind]
        gold = [(suite, *each) for suite in own for each in gold_responses(suite, folder)]
        async with open_verifier(own[0].verifier(settings)) as verifier:
            verdicts = await asyncio.gather(*(verifier(response, problem) for _, problem, response in gold))
        judged += [(suite, problem, verdict) for (suite, problem, _), verdict in zip(gold, verdicts, strict=True)]
    return judged


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the benchmarks' files")
    parser.add_argument("names", nargs="*", metavar="SUITE", help="some of the suites; none: all")
    parser.add_argument("--workers", type=int, default=2, help="responses judged at once (default 2)")
    arguments = parser.parse_args()
    from offsft.config import VerifyConfig
    from offsft.data.suites import built_in_names, find_suites
    from offsft.errors import OffsftError

    settings = VerifyConfig(timeout_s=60, workers=arguments.workers)
    failed, missing = False, []
    for suite in find_suites(arguments.names or built_in_names()):
        if suite.file is None or not (arguments.folder / suite.file).is_file():
            missing.append(suite.name)
            continue
        try:
            judged = asyncio.run(judge_gold([suite], arguments.folder, settings))
        except OffsftError as error:
            failed = True
            print(f"{suite.name}: {error}")
            continue
        wrong = [(problem.id, verdict) for _, problem, verdict in judged if not is_right(suite, verdict)]
        what = "rows can be judged" if suite.is_instructions else "gold responses correct"
        print(f"{suite.name}: {len(judged) - len(wrong)} of {len(judged)} {what}", flush=True)
        for name, verdict in wrong:
            print(f"  {name}: {verdict.outcome}: {verdict.why}")
        failed |= bool(wrong)
    if missing:
        print(f"not in {arguments.folder}: {', '.join(missing)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
