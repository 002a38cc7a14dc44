"""The mathematical verifier, and the pool of processes that it runs in."""

import asyncio
import json
import os
import time
from pathlib import Path

import psutil
import pytest

from offsft.config import Verify
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify import open_verifier
from offsft.verify.math import equal, final_answer, judge
from offsft.verify.pool import VerifierPool

DATA = Path(os.environ.get("OFFSFT_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def problem(answer="7"):
    return Problem("id", "p", "s", answer)


@pytest.mark.parametrize(
    ("found", "reference", "same"),
    [
        ("$1,200", "1200", True),
        ("12.0", "12", True),
        ("18 dollars", "18", True),
        ("18\\text{ dollars}", "18", True),
        ("\\$18", "18", True),
        ("-$5", "-5", True),
        ("1/2", "0.5", True),
        ("\\frac{1}{2}", "0.5", True),
        ("50%", "\\frac{1}{2}", True),
        ("x = 3", "3", True),
        ("(1,2)", "(1, 2)", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("-3", "3", False),
        ("(1,2)", "(2,1)", False),
        ("12", "13", False),
        ("1.2", "12", False),
        ("7 or 8", "7", False),
        ("9" * 400, "9", False),
    ],
)
def test_equality(found, reference, same):
    assert equal(found, reference) is same


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("so \\boxed{4}. Done.", "4"),
        ("first \\boxed{3}, no: \\boxed{4}", "4"),
        ("work\n#### 72", "72"),
        ("work\nA: 18", "18"),
        ("The answer is 45. Good bye.", "45"),
        ("The final answer is: $12.50.", "12.50"),
        ("so there are 45 apples", None),
        ("\\boxed{", None),
        ("", None),
    ],
)
def test_the_stated_answer_is_found_and_a_last_number_is_not_one(response, answer):
    found = final_answer(response)
    assert (found.lstrip("$") if found else found) == answer


def test_outcomes_say_what_was_found():
    assert judge("\\boxed{7}", "7") == Verdict(Outcome.CORRECT, "7")
    assert judge("\\boxed{8}", "7") == Verdict(Outcome.WRONG, "8")
    assert judge("it is 7", "7") == Verdict(Outcome.NO_ANSWER)


def test_agrees_with_every_label_of_the_graded_solutions():
    path = DATA / "gsm8k_graded_solutions.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there; set OFFSFT_SHARED_DATA to the folder that holds it")
    wrong, labels = [], 0
    for line in path.read_text().splitlines():
        graded = json.loads(line)
        answer = graded["ground_truth"].rpartition("A:")[2].strip()
        for model, solution in graded.items():
            if isinstance(solution, dict):
                labels += 1
                if (judge(solution["solution"], answer).outcome is Outcome.CORRECT) is not solution["is_correct"]:
                    wrong.append((model, solution["solution"][-80:], answer))
    assert labels == 2400
    assert wrong == []


async def _judged(settings, responses):
    pool = open_verifier(settings)
    try:
        verdicts = await asyncio.gather(*(pool(response, problem()) for response in responses))
    finally:
        pool.close()
    return [verdict.outcome for verdict in verdicts], pool


def test_hostile_responses_end_within_the_limit_while_others_go_on():
    hostile = ["\\boxed{9^9^9^9}", "\\boxed{9^{9^{9^9}}}", "\\boxed{10^{10^{10}}}", "\\boxed{" + "(" * 250 + "}"]
    long = ["1" * 100_000, "{" * 100_000, "\\boxed{" * 14_000, "\\boxed{" + "1" * 100_000 + "}"]
    fine = ["\\boxed{7}"] * 10
    outcomes, pool = asyncio.run(_judged(Verify(timeout_s=2, workers=2), [*hostile, *long, *fine]))
    assert all(outcome is not Outcome.CORRECT for outcome in outcomes[:8])
    assert outcomes[8:] == [Outcome.CORRECT] * 10
    assert pool.timeouts >= 1


def _swallow_memory(response, answer):
    if response == "warm":
        return Verdict(Outcome.WRONG)
    if response == "hungry":
        return Verdict(Outcome.CORRECT, str(len(bytearray(2**32))))
    if response == "dies":
        os._exit(3)
    if response == "hangs":
        time.sleep(600)
    return Verdict(Outcome.CORRECT)


def test_memory_death_and_hanging_cost_one_response_each():
    async def run():
        pool = VerifierPool(_swallow_memory, workers=1, timeout_s=2, memory_mb=256, warm_up=("warm", ""))
        try:
            return await asyncio.gather(*(pool(r, problem()) for r in ("hungry", "a", "dies", "b", "hangs", "c")))
        finally:
            pool.close()

    assert [verdict.outcome for verdict in asyncio.run(run())] == [
        Outcome.ERROR,
        Outcome.CORRECT,
        Outcome.ERROR,
        Outcome.CORRECT,
        Outcome.TIMEOUT,
        Outcome.CORRECT,
    ]


def test_no_process_is_left_behind():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    asyncio.run(_judged(Verify(workers=2), ["\\boxed{7}"] * 4))
    left = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    assert not [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]
