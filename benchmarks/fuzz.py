"""Fuzzes every reader of untrusted text: `python -m benchmarks.fuzz [--inputs 100000] [--seed 0] [--json]`.

atheris (coverage-guided mutation) feeds, each in a separate process:

`rows`      the row parser, in all formats: raw bytes, and JSON objects of raw values
`answer`    the extraction of final answers
`verifier`  the verifier as it runs in a job, in processes with limits on time and memory

A crash, an input that takes longer than `LIMIT_S`, or a process larger than `LIMIT_MB` fails the run, and libFuzzer
leaves the input in the working directory. Prints per target: inputs, their outcomes, the slowest in milliseconds, and
the growth of its processes after the first tenth of the inputs, in MB.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 60
LIMIT_MB = 4000
SEEDS = 200
"""Number of random initial inputs."""
FORMATS = ["own", "gsm8k", "math", "numina", "chat", "alpaca", "completion", "verl"]
FIELDS = ["problem", "solution", "answer", "question", "messages", "role", "content"]
FRAGMENTS = [
    *("\\boxed{", "}", "{", "\\boxed ", "\\fbox{", "####", "The answer is ", "**Answer:** ", "A: ", "\n", " ", "$", ",", ".", "="),
    *("\\frac{", "\\dfrac12", "\\sqrt{", "\\text{", "\\left(", "\\right]", "\\pm", "\\cup", "\\infty", "\\begin{pmatrix}", "&", "\\\\"),
    *("^", "_", "!", "%", "°", "€", "e", "x", "pi", "0", "1", "7", "12,345", "3.14", "or ", "and "),
    *("\0", "\ud800", "\u202e", "𝟙", "<|im_end|>", "<|endoftext|>", "__import__('os')", "lambda: 0"),
]  # fmt: skip
EXPLOSIVE = ["^{9^{9^9}}", "10**10**10", "(9**9)!", "9" * 400, "\\frac{" * 100]
"""Rare, one in 10,000 parts of texts, since each may cost the verifier a process and its time limit."""
MOST_CHARACTERS = 300
"""Longest part of a reference answer read in the fuzzer's process; the verifier gets all of it."""
IN_FLIGHT = 32
"""Texts that the verifier has at once, as in a job, so that one that uses its whole time limit delays no other."""


@dataclass(frozen=True, slots=True)
class Target:
    """A fuzzing target: `one` begins an input, `end` waits; both return new outcomes, each with its seconds."""

    one: Callable[[Any], list[tuple[str, float]]]
    end: Callable[[], list[tuple[str, float]]] = list


def time_target(judge: Callable[[Any], str]) -> Target:
    """A target that finishes each input at once."""

    def one(data: Any) -> list[tuple[str, float]]:
        begun_s = time.monotonic()
        return [(judge(data), time.monotonic() - begun_s)]

    return Target(one)


def rows_target() -> Target:
    from offsft.config import Fields
    from offsft.data.formats import parse
    from offsft.data.rows import RawRow
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

    return time_target(one)


def answer_target() -> Target:
    from offsft.verify.answer import final_answer

    def one(data: Any) -> str:
        found = final_answer(text_of(data))
        assert found is None or found.strip()
        return "none" if found is None else "answer"

    return time_target(one)


def verifier_target() -> Target:
    from offsft.config import VerifyConfig
    from offsft.records import Problem
    from offsft.verify import open_verifier
    from offsft.verify.answer import final_answer
    from offsft.verify.quantity import read
    from offsft.verify.structure import parts

    verifier = open_verifier(VerifyConfig(timeout_s=2))
    loop = asyncio.new_event_loop()
    pending: set[asyncio.Task[tuple[str, float]]] = set()

    async def judged(response: str, answer: str) -> tuple[str, float]:
        begun_s = time.monotonic()
        verdict = await verifier(response, Problem("0", "p", "s", answer))
        return str(verdict.outcome), time.monotonic() - begun_s

    def finished(when: str) -> list[tuple[str, float]]:
        done, waiting = loop.run_until_complete(asyncio.wait(pending, timeout=LIMIT_S, return_when=when))
        assert done, f"none of {len(waiting)} texts was judged within {LIMIT_S} s"
        pending.intersection_update(waiting)
        return [task.result() for task in done]

    def one(data: Any) -> list[tuple[str, float]]:
        response, answer = text_of(data), text_of(data)
        if not data.ConsumeBool():  # most texts state no answer and leave braces open, so half are boxed and closed
            response = "\\boxed{" + response + "}" * max(1, 1 + response.count("{") - response.count("}"))
        # The judging processes' coverage is not visible here: their first steps, run here, guide the mutation instead.
        for text in (final_answer(response) or "", answer[:MOST_CHARACTERS]):
            parts(text)
            read(text)
        pending.add(loop.create_task(judged(response, answer or "0")))
        return finished(asyncio.FIRST_COMPLETED) if len(pending) == IN_FLIGHT else []

    def end() -> list[tuple[str, float]]:
        found = finished(asyncio.ALL_COMPLETED)
        verifier.close()
        return found

    return Target(one, end)


TARGETS = {"rows": rows_target, "answer": answer_target, "verifier": verifier_target}


def text_of(data: Any) -> str:
    """Text made of fragments that the readers interpret, and of arbitrary characters."""
    parts = []
    for _ in range(data.ConsumeIntInRange(1, 12)):
        kind = data.ConsumeIntInRange(0, 9999)
        if kind < 7500:
            parts.append(data.PickValueInList(FRAGMENTS))
        elif kind == 9999:
            parts.append(data.PickValueInList(EXPLOSIVE))
        else:
            parts.append(data.ConsumeUnicode(data.ConsumeIntInRange(0, 60)))
    return "".join(parts)


def fuzz(target: str, inputs: int, seed: int, result: Path) -> None:
    """Run one target; libFuzzer ends the process."""
    import psutil

    atheris: Any = importlib.import_module("atheris")  # its stubs lack everything used here
    with atheris.instrument_imports(include=["offsft"]):
        under_test = TARGETS[target]()
    outcomes: Counter[str] = Counter()
    given, slowest_s, started_s, first_mb = 0, 0.0, time.monotonic(), 0.0

    def memory_mb() -> float:
        this = psutil.Process()
        return sum(process.memory_info().rss for process in (this, *this.children(recursive=True))) / 2**20

    def count(done: list[tuple[str, float]]) -> None:
        nonlocal slowest_s
        for outcome, seconds in done:
            outcomes[outcome] += 1
            slowest_s = max(slowest_s, seconds)

    def test(raw: bytes) -> None:
        nonlocal given, first_mb
        if given == inputs:  # libFuzzer runs its whole corpus, even if fewer inputs are asked for
            return
        given += 1
        count(under_test.one(atheris.FuzzedDataProvider(raw)))
        if given == max(1, inputs // 10):
            first_mb = memory_mb()
        if given == inputs:
            last_mb = memory_mb()
            count(under_test.end())
            found = {
                "inputs": outcomes.total(),
                "outcomes": dict(outcomes.most_common()),
                "slowest_ms": round(1000 * slowest_s),
                "growth_mb": round(last_mb - first_mb),
                "seconds": round(time.monotonic() - started_s),
            }
            result.write_text(json.dumps(found))

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
