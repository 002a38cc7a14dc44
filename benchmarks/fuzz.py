"""Hostile text against all that reads it: `python -m benchmarks.fuzz [--inputs 100000] [--seed 0] [--json]`.

atheris (coverage-guided mutation) feeds, each in a process of its own:

`rows`      the row parser, in all formats: raw bytes, and JSON objects of raw values
`answer`    the extraction of final answers
`verifier`  the verifier as it runs in a job, in processes with limits on time and memory

A crash, an input that takes longer than `LIMIT_S`, or a process larger than `LIMIT_MB` fails the run, and libFuzzer leaves the
input in the working directory. Printed for each target: inputs, what became of them, the slowest in milliseconds, and by
how many MB its processes grew after the first tenth of the inputs.
"""

import argparse
import asyncio
import importlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 30
LIMIT_MB = 4000
SEEDS = 200
"""Random inputs to begin with."""
FORMATS = ["own", "gsm8k", "math", "numina"]
FIELDS = ["problem", "solution", "answer", "question", "messages", "role", "content"]
FRAGMENTS = [
    *("\\boxed{", "}", "{", "\\boxed ", "\\fbox{", "####", "The answer is ", "**Answer:** ", "A: ", "\n", " ", "$", ",", ".", "="),
    *("\\frac{", "\\dfrac12", "\\sqrt{", "\\text{", "\\left(", "\\right]", "\\pm", "\\cup", "\\infty", "\\begin{pmatrix}", "&", "\\\\"),
    *("^", "_", "!", "%", "°", "€", "e", "x", "pi", "0", "1", "7", "12,345", "3.14", "or ", "and "),
    *("\0", "\ud800", "\u202e", "𝟙", "<|im_end|>", "<|endoftext|>", "__import__('os')", "lambda: 0"),
]  # fmt: skip
EXPLOSIVE = ["^{9^{9^9}}", "10**10**10", "(9**9)!", "9" * 400, "\\frac{" * 100]
"""Rare, since each may cost the verifier a process and its time limit."""


def rows_target() -> tuple[Callable[[Any], str], Callable[[], None]]:
    from offsft.config import Fields
    from offsft.problems import RawRow, parse
    from offsft.records import Problem

    fields = Fields(answer="answer")

    def value(data: Any, depth: int = 0) -> Any:
        kind = data.ConsumeIntInRange(0, 7 if depth < 3 else 5)
        if kind <= 2:
            return text_of(data)
        if kind <= 5:
            return (None, data.ConsumeBool(), data.ConsumeFloat() if data.ConsumeBool() else data.ConsumeInt(12))[
                kind - 3
            ]
        if kind == 6:
            return [value(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 3))]
        return {data.PickValueInList(FIELDS): value(data, depth + 1) for _ in range(data.ConsumeIntInRange(0, 5))}

    def one(data: Any) -> str:
        form = data.PickValueInList(FORMATS)
        if data.ConsumeBool():
            raw = data.ConsumeBytes(4096)
        else:
            tree = {name: value(data) for name in FIELDS[: data.ConsumeIntInRange(1, 5)]}
            raw = json.dumps(tree).encode("utf-8", "surrogatepass")
        parsed = parse(RawRow("f", 1, raw), form, fields)
        if not isinstance(parsed, Problem):
            assert "\n" not in parsed.detail, "a reason is one line"
            json.dumps([parsed.detail, parsed.raw]).encode()
            return str(parsed.reason)
        for text in (parsed.problem, parsed.solution, parsed.answer):
            assert text, "a problem's texts are not empty"
            assert "\0" not in text
            text.encode("utf-8")
        return "problem"

    return one, lambda: None


def answer_target() -> tuple[Callable[[Any], str], Callable[[], None]]:
    from offsft.verify.math import final_answer

    def one(data: Any) -> str:
        found = final_answer(text_of(data))
        assert found is None or found.strip()
        return "none" if found is None else "answer"

    return one, lambda: None


def verifier_target() -> tuple[Callable[[Any], str], Callable[[], None]]:
    from offsft.config import Verify
    from offsft.records import Problem
    from offsft.verify import open_verifier

    verifier = open_verifier(Verify(timeout_s=2))
    loop = asyncio.new_event_loop()

    def one(data: Any) -> str:
        response, answer = text_of(data), text_of(data)
        if data.ConsumeBool():  # most texts state no answer: half of them do
            response = f"\\boxed{{{response}}}"
        verdict = loop.run_until_complete(verifier(response, Problem("0", "p", "s", answer or "0")))
        return str(verdict.outcome)

    return one, verifier.close


TARGETS = {"rows": rows_target, "answer": answer_target, "verifier": verifier_target}


def text_of(data: Any) -> str:
    """Text of fragments that mean something to the readers, and of arbitrary characters."""
    parts = []
    for _ in range(data.ConsumeIntInRange(0, 12)):
        kind = data.ConsumeIntInRange(0, 999)
        if kind < 750:
            parts.append(data.PickValueInList(FRAGMENTS))
        elif kind == 999:
            parts.append(data.PickValueInList(EXPLOSIVE))
        else:
            parts.append(data.ConsumeUnicode(data.ConsumeIntInRange(0, 60)))
    return "".join(parts)


def fuzz(target: str, inputs: int, seed: int, result: Path) -> None:
    """Run one target; libFuzzer ends the process."""
    import psutil

    atheris: Any = importlib.import_module("atheris")  # its stubs name nothing of what is used here
    with atheris.instrument_imports(include=["offsft"]):
        one, close = TARGETS[target]()
    outcomes: Counter[str] = Counter()
    slowest_s, started_s, first_mb = 0.0, time.monotonic(), 0.0

    def memory_mb() -> float:
        this = psutil.Process()
        return sum(process.memory_info().rss for process in (this, *this.children(recursive=True))) / 2**20

    def test(raw: bytes) -> None:
        nonlocal slowest_s, first_mb
        if outcomes.total() == inputs:  # libFuzzer runs its whole corpus, however few are asked for
            return
        begun_s = time.monotonic()
        outcomes[one(atheris.FuzzedDataProvider(raw))] += 1
        slowest_s = max(slowest_s, time.monotonic() - begun_s)
        if outcomes.total() == max(1, inputs // 10):
            first_mb = memory_mb()
        if outcomes.total() == inputs:
            found = {
                "inputs": inputs,
                "outcomes": dict(outcomes.most_common()),
                "slowest_ms": round(1000 * slowest_s),
                "growth_mb": round(memory_mb() - first_mb),
                "seconds": round(time.monotonic() - started_s),
            }
            result.write_text(json.dumps(found))
            close()

    corpus = result.parent / "corpus"
    corpus.mkdir()
    draw = random.Random(seed)
    for number in range(SEEDS):
        (corpus / str(number)).write_bytes(draw.randbytes(draw.randint(1, 800)))
    options = [f"-timeout={LIMIT_S}", f"-rss_limit_mb={LIMIT_MB}", f"-seed={seed + 1}", f"-runs={inputs}"]
    options += ["-max_len=1024", "-len_control=0", "-artifact_prefix=./fuzz-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], test)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target (default 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutation (default 0)")
    parser.add_argument("--targets", default=",".join(TARGETS), help="which, separated by commas (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    targets = arguments.targets.split(",")
    if unknown := [name for name in targets if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if arguments.result:
        fuzz(targets[0], arguments.inputs, arguments.seed, arguments.result)
    found = {name: in_process(name, arguments.inputs, arguments.seed) for name in targets}
    print(json.dumps(found) if arguments.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    sys.exit(0 if all("failed" not in value for value in found.values()) else 1)


def in_process(target: str, inputs: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        options = [f"--targets={target}", f"--inputs={inputs}", f"--seed={seed}", f"--result={result}"]
        log = Path(folder) / "log"
        with log.open("wb") as file:
            status = subprocess.call([sys.executable, "-m", "benchmarks.fuzz", *options], stdout=file, stderr=file)
        if status == 0 and result.exists():
            return json.loads(result.read_text())
        sys.stderr.write(log.read_text(errors="replace")[-4000:])
        return {"failed": f"exit status {status}; the input is in the file fuzz-* here"}


if __name__ == "__main__":
    main()
