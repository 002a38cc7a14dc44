"""Whether the mathematical verifier finds the benchmarks' gold answers equal to themselves, as given and rewritten.

`python -m benchmarks.gold_agreement FOLDER` (those present of math500.jsonl, minerva_math.jsonl, olympiadbench.jsonl,
aime24.jsonl, amc23.jsonl, gsm8k_test.jsonl, asdiv.jsonl). For the choices of mmlu_stem.jsonl it counts the letters that are
those of the published index, and that the verifier of choices finds. Exits with 1 if one is not.
"""

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offsft.verify.boxed import boxed_answer

ANSWERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "math500": lambda row: row["answer"],
    "minerva_math": lambda row: boxed_answer(row["solution"]) or "",
    "olympiadbench": lambda row: ", ".join(row["final_answer"]),
    "aime24": lambda row: str(row["answer"]),
    "amc23": lambda row: str(row["answer"]),
    "gsm8k_test": lambda row: row["answer"].rpartition("####")[2].strip(),
    "asdiv": lambda row: row["answer"],
}
_UNICODE = {
    "\\pi": "π",
    "\\infty": "∞",
    "\\cdot": "·",
    "\\times": "×",
    "\\pm": "±",
    "\\cup": "∪",
    "\\theta": "θ",
    "\\in": "∈",
    "-": "−",
}
NOTATIONS: dict[str, Callable[[str], str]] = {
    "as given": lambda answer: answer,
    "in dollars": lambda answer: f"${_without_dollars(answer)}$",
    "dfrac": lambda answer: answer.replace("\\frac", "\\dfrac"),
    "tfrac": lambda answer: answer.replace("\\frac", "\\tfrac"),
    "spaces": lambda answer: re.sub(r"(?<=[,=+])(?! )", " ", answer),
    "no spaces": lambda answer: re.sub(r"(?<=[^\w\s]) +(?=[^\w\s])", "", answer),
    "display": lambda answer: f"\\displaystyle {_without_dollars(answer)}",
    "left and right": lambda answer: re.sub(r"(?<!\\right)([)\]])", r"\\right\1", re.sub(r"(?<!\\left)([(\[])", r"\\left\1", answer)),
    "thousands": lambda answer: re.sub(r"(?<![\d.,{^\\!])(\d{1,3})(\d{3})(?![\d}])", r"\1{,}\2", answer),
    "without its unit": lambda answer: re.sub(r"^(-?[\d.,]+) \([A-Za-z][^()]*\)$", r"\1", answer),
    "full stop": lambda answer: f"{answer}.",
    "slash": lambda answer: re.sub(r"(?<![\d}])\\[dt]?frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)", answer),
    "Unicode": lambda answer: re.sub(r"\\[a-z]+(?![A-Za-z])|-", lambda sign: _UNICODE.get(sign[0], sign[0]), answer),
}  # fmt: skip
"""Notations that keep the meaning of every answer that they change."""


def _without_dollars(answer: str) -> str:
    """The answer without the dollar signs around mathematics; a currency's `\\$` stays."""
    return re.sub(r"(?<!\\)\$", "", answer)


async def disagreements(folder: Path) -> tuple[int, list[dict[str, str]]]:
    """The number of comparisons, and those judged not equal."""
    from offsft.config import VerifyConfig
    from offsft.records import Outcome, Problem
    from offsft.verify import open_verifier

    cases = []
    for suite, answer_of in ANSWERS.items():
        path = folder / f"{suite}.jsonl"
        if path.exists():
            for line, row in enumerate(map(json.loads, path.read_text(encoding="utf-8").splitlines()), start=1):
                answer = answer_of(row)
                for notation, written in NOTATIONS.items():
                    if notation == "as given" or written(answer) != answer:
                        cases.append((suite, line, notation, answer, written(answer)))
    async with open_verifier(VerifyConfig(timeout_s=20)) as verifier:
        verdicts = await asyncio.gather(
            *(verifier(f"\\boxed{{{case[4]}}}", Problem("", "", "", case[3])) for case in cases)
        )
    return len(cases), [
        dict(zip(("suite", "line", "notation", "answer", "written"), map(str, case), strict=True))
        | {"outcome": str(verdict.outcome), "why": verdict.why}
        for case, verdict in zip(cases, verdicts, strict=True)
        if verdict.outcome is not Outcome.CORRECT
    ]


def wrong_letters(path: Path) -> tuple[int, list[str]]:
    """The number of rows of mmlu_stem.jsonl, and those whose letter is not the published index's, or is not found."""
    from offsft.config import VerifyConfig
    from offsft.data.suites import find_suites, load_suite
    from offsft.records import Outcome
    from offsft.verify.choice import LETTERS, ChoiceJudge

    (suite,) = find_suites(["mmlu_stem"])
    problems, judge = load_suite(suite, str(path.parent)), ChoiceJudge(VerifyConfig(kind="choice"))
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return len(problems), [
        problem.id
        for problem, row in zip(problems, rows, strict=True)
        if problem.answer != LETTERS[row["answer"]]
        or judge(f"So \\boxed{{{problem.answer}}}.", problem).outcome is not Outcome.CORRECT
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the benchmarks' JSONL files")
    arguments = parser.parse_args()
    choices = arguments.folder / "mmlu_stem.jsonl"
    letters, wrong_ids = wrong_letters(choices) if choices.exists() else (0, [])
    if letters:
        print(f"{letters - len(wrong_ids)} of {letters} letters of mmlu_stem are right", *wrong_ids)
    cases, wrong = asyncio.run(disagreements(arguments.folder))
    if not cases:
        parser.error(f"{arguments.folder} holds none of {', '.join(f'{name}.jsonl' for name in ANSWERS)}")
    print(f"{cases - len(wrong)} of {cases} comparisons are equal")
    for each in wrong:
        print(json.dumps(each, ensure_ascii=False))
    return 1 if wrong or wrong_ids else 0


if __name__ == "__main__":
    sys.exit(main())
