"""The mathematical verifier, and its process pool."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_judges import die, misbehave

from benchmarks.gold_agreement import NOTATIONS
from offsft.config import VerifyConfig
from offsft.errors import OffsftError
from offsft.protocols import Verdict
from offsft.records import Outcome, Problem
from offsft.verify import open_verifier
from offsft.verify.answer import final_answer
from offsft.verify.math import equal, judge
from offsft.verify.pool import VerifierPool
from offsft.verify.quantity import read

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("OFFSFT_SHARED_DATA", ROOT.parent / "shared" / "data"))


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
        # numbers and the ways to write them
        ("1{,}200", "1200", True),
        ("1\\,200", "1200", True),
        ("32,\\! 348", "32348", True),
        ("12,34", "1234", False),
        ("2n+1{,}007", "2n+1007", True),
        ("2{,}500, 7500", "2500,7500", True),
        ("1{,}20", "120", False),
        ("18.", "18", True),
        ("\u2212 5", "-5", True),
        ("--5", "-5", False),
        ("1 1/2", "1.5", True),
        ("1 1/2", "1/2", False),
        ("1 1/2", "1\\frac{1}{2}", True),
        ("0.333333", "1/3", True),
        ("0.33", "1/3", False),
        ("1.0000001", "1", False),
        ("12345678901234567891", "12345678901234567892", False),
        ("1/0", "0", False),
        ("2^{10}", "1024", True),
        # signs of Unicode
        ("2π", "2\\pi", True),
        ("2π", "3\\pi", False),
        ("(−∞, 2) ∪ (3, ∞)", "(-\\infty,2)\\cup(3,\\infty)", True),
        ("(−∞, 2) ∪ [3, ∞)", "(-\\infty,2)\\cup(3,\\infty)", False),
        ("2√3", "\\sqrt{12}", True),
        ("3 · 10²", "300", True),
        ("3 · 10²", "310", False),
        ("4×5", "20", True),
        # percent: a share or its hundredfold
        ("50\\%", "50", True),
        ("50", "50%", True),
        ("50%", "0.5", True),
        ("50%", "5", False),
        # units may be missing but not wrong
        ("\u20ac20", "20", True),
        ("20 \u20ac", "20", True),
        ("$5", "5 dollars", True),
        ("$5", "5 miles", False),
        ("18 dollars per day", "18 dollars", True),
        ("5/6 cups", "5/6", True),
        ("3 hours", "3 minutes", False),
        ("5 feet", "5 ft", True),
        ("12\\text{ cm}", "12\\text{ m}", False),
        ("5 cm^2", "5 cm", False),
        ("3\\sqrt{2}\\text{ cm}", "\\sqrt{18}", True),
        ("90^\\circ", "90", True),
        # a variable or function is not a unit
        ("2x", "2", False),
        ("2y", "2x", False),
        ("5n", "5", False),
        ("3i", "3", False),
        ("2ab", "2", False),
        ("\\frac{2}{3}", "\\frac{1}{3} E_{1}+\\frac{2}{3} E_{2}", False),
        ("\\frac{1}{3} E_{1}", "\\frac{1}{3}", False),
        ("x_1 = 3", "3", True),
        ("\\angle B A_{1}=90", "\\angle B A_{1}=90^\\circ", True),
        ("2 pi", "2", False),
        ("2 pi", "2\\pi", True),
        # spaces that are typesetting, and spaces that carry meaning
        ("10, \\!080", "10,\\!080", True),
        ("58, 500", "58,500", True),
        ("t(0, 4]", "t(0,4]", True),
        ("m_{\\max }= n^{2}", "m_{\\max }=n^{2}", True),
        ("11/2", "1 1/2", False),
        ("1 2", "12", False),
        # several answers, or words around one, are not that one
        ("3, 4", "4", False),
        ("4, 3", "3, 4", True),
        ("3 \\text{ or } 4", "4", False),
        ("x=3$ or $x=4", "4", False),
        ("7 apples and 3 pears", "3", False),
        ("not 5", "5", False),
        ("x = 3", "y = 3", False),
        ("\\text{(C)}", "C", True),
        ("A", "B", False),
        ("\u0665", "5", False),
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
        ("**Answer**: 45", "45"),
        ("**Final Answer:** 45", "45"),
        ("## Final Answer\n\n45 apples", "45 apples"),
        ("Final answer:\n$45$", "45"),
        ("The answer to the question is therefore 45.", "45"),
        ("The answer to this problem is 45.", "45"),
        ("The answer for this list of thistles is 45.", "45"),
        ("The answer to the first part is 7. The answer to this one is 45.", "45"),
        ("The answer is $45$, so we are done.", "45"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}"),
        ("The answer is 3. Wait, no. The answer is 4.", "4"),
        ("The answer is x = 3, y = 4.", "x = 3, y = 4"),
        ("**A:** 45", "45"),
        ("x is $\\boxed{3}$ or $\\boxed{4}$", "3, 4"),
        ("\\boxed{4}" + " " * 30_000, None),
        ("A: 3\nB: 4\nC: 5", None),
        ("a: 3\nb = 4", None),
        ("#### Step 2: add 5", None),
        ("The answer isn't 45", None),
        ("What is the answer? 45", None),
        ("so there are 45 apples", None),
        ("\\boxed{", None),
        ("", None),
    ],
)
def test_the_stated_answer_is_found_and_a_last_number_is_not_one(response, answer):
    found = final_answer(response)
    assert (found.lstrip("$") if found else found) == answer


def test_outcomes_say_what_was_found():
    assert judge("\\boxed{7}", "7") == Verdict(Outcome.CORRECT, "7", "box", "equal")
    assert judge("\\boxed{8}", "7") == Verdict(Outcome.WRONG, "8", "box", "not equal to 7")
    assert judge("it is 7", "7").outcome is Outcome.NO_ANSWER


@given(st.fractions(max_denominator=1000), st.sampled_from(["{}", "${}", "{} apples", "{}\\text{{ km}}", "{}."]))
def test_a_fraction_is_read_exactly_in_any_dress(value, dress):
    assert read(dress.format(value))[2].value == value
    left, right = (dress.format(f"{n}") for n in (value, value + Fraction(1, 1000)))
    assert equal(left, str(value))
    assert not equal(right, str(value))


NUMBERS = st.one_of(
    st.integers(-99_999, 99_999).map(str),
    st.builds("\\frac{{{}}}{{{}}}".format, st.integers(1, 99), st.integers(2, 99)),
    st.builds("{}\\sqrt{{{}}}".format, st.integers(2, 9), st.integers(2, 99)),
    st.builds("{}\\pi".format, st.integers(2, 99)),
)
ANSWERS = st.one_of(
    NUMBERS,
    st.builds("({}, {})".format, NUMBERS, NUMBERS),
    st.builds("[{}, \\infty)".format, NUMBERS),
    st.builds("(-\\infty, {}) \\cup ({}, \\infty)".format, NUMBERS, NUMBERS),
    st.builds("x = {}".format, NUMBERS),
)


@settings(deadline=None)  # the first that needs it loads sympy
@given(ANSWERS, st.sets(st.sampled_from(sorted(NOTATIONS))))
def test_an_answer_equals_itself_in_other_notations_and_no_larger_one(answer, notations):
    written = answer
    for name, notation in NOTATIONS.items():
        if name in notations:
            written = notation(written)
    assert judge(f"so \\boxed{{{written}}}", answer).outcome is Outcome.CORRECT, written
    other = re.sub(r"\d+", lambda digits: f"{int(digits[0]) + 1}", answer, count=1)
    assert judge(f"so \\boxed{{{written}}}", other).outcome is Outcome.WRONG, written


@given(st.text(alphabet="answer is:A#$ .,\\boxed{}0123456789x\n%/-", max_size=60))
def test_no_response_makes_the_extraction_raise(response):
    found = final_answer(response)
    assert found is None or found.strip()
    read(response)


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


HOSTILE = {
    "tower": "\\boxed{9^9^9^9}",
    "braced tower": "\\boxed{9^{9^{9^9}}}",
    "power": "\\boxed{10^{10^{10}}}",
    "factorial": "\\boxed{99999999999!}",
    "parentheses": "\\boxed{" + "(" * 290 + "}",
    "digits": "1" * 100_000,
    "boxed digits": "\\boxed{" + "1" * 100_000 + "}",
    "braces": "{" * 100_000,
    "nested parentheses": "(" * 50_000 + ")" * 50_000,
    "open boxes": "\\boxed{" * 20_000,
    "answers": "answer to " * 10_000,
    "spaces": "The answer is" + " " * 15_000 + "5" + " " * 4_000 + "6",
    "lines": "\n" * 100_000,
    "backslashes": "\\" * 100_000,
}


def test_hostile_responses_end_within_the_limit_while_others_go_on():
    hostile = list(HOSTILE.values())
    outcomes, pool = asyncio.run(_judged(VerifyConfig(timeout_s=2, workers=2), [*hostile, *["\\boxed{7}"] * 10]))
    assert Outcome.CORRECT not in outcomes[: len(hostile)]
    assert outcomes[len(hostile) :] == [Outcome.CORRECT] * 10
    of = dict(zip(HOSTILE, outcomes, strict=False))
    assert of["braced tower"] in (Outcome.TIMEOUT, Outcome.ERROR)
    # None of the long ones needs the time limit, so a long but sound response is never lost to it.
    assert {of[name] for name, text in HOSTILE.items() if len(text) > 300} <= {Outcome.WRONG, Outcome.NO_ANSWER}
    assert (pool.timeouts, pool.errors) == (outcomes.count(Outcome.TIMEOUT), outcomes.count(Outcome.ERROR))


def test_others_are_answered_while_one_hangs():
    async def run():
        order = []
        async with _pool(workers=2, timeout_s=3) as pool:

            async def judged(response):
                order.append((response, (await pool(response, problem())).outcome))

            await asyncio.gather(*map(judged, ["hangs", "a", "b", "c", "d", "e"]))
        return order

    order = asyncio.run(run())
    assert order[-1] == ("hangs", Outcome.TIMEOUT)
    assert sorted(order[:-1]) == [(name, Outcome.CORRECT) for name in "abcde"]


def _pool(judge=misbehave, *, workers=1, timeout_s=2.0):
    return VerifierPool(judge, workers=workers, timeout_s=timeout_s, memory_mb=256, warm_up=("warm", problem()))


def test_memory_death_and_hanging_cost_one_response_each():
    async def run():
        async with _pool() as pool:
            names = ("hungry", "a", "dies", "b", "hangs", "c", "raises", "d")
            return await asyncio.gather(*(pool(name, problem()) for name in names))

    assert [verdict.outcome for verdict in asyncio.run(run())] == [
        Outcome.ERROR,
        Outcome.CORRECT,
        Outcome.ERROR,
        Outcome.CORRECT,
        Outcome.TIMEOUT,
        Outcome.CORRECT,
        Outcome.ERROR,
        Outcome.CORRECT,
    ]


def test_no_verdict_pays_for_imports():
    """A new process has imported what mathematics needs: on a busy machine that takes longer than `verify.timeout_s`."""
    code = """
import sys
from offsft.config import VerifyConfig
from offsft.verify.math import MathJudge, judge

MathJudge(VerifyConfig())(*MathJudge.warm_up)
before = {name.partition(".")[0] for name in sys.modules}
for answer, reference in (("x+1", "1+x"), ("(1,2]", "1 < x"), ("e^{i\\\\pi}", "2"), ("5 km", "6 km"), ("a", "b")):
    judge(f"\\\\boxed{{{answer}}}", reference)
print({name.partition(".")[0] for name in sys.modules} - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_an_idle_process_may_be_killed_from_outside():
    async def run():
        async with _pool() as pool:
            pid = (await pool("pid", problem())).extracted
            os.kill(int(pid), signal.SIGKILL)
            verdicts = await asyncio.gather(*(pool("a", problem()) for _ in range(5)))
            return [verdict.outcome for verdict in verdicts], pool.errors

    assert asyncio.run(run()) == ([Outcome.CORRECT] * 5, 0)


def test_processes_that_cannot_start_are_an_error_that_says_so():
    async def run():
        async with _pool(die) as pool:
            await pool("a", problem())

    with pytest.raises(OffsftError, match="end as soon as they start"):
        asyncio.run(run())


def test_a_closed_verifier_says_so():
    async def run():
        pool = _pool()
        pool.close()
        await pool("a", problem())

    with pytest.raises(OffsftError, match="closed"):
        asyncio.run(run())


def test_a_given_up_call_frees_its_process():
    async def run():
        async with _pool(timeout_s=600) as pool:
            hanging = asyncio.create_task(pool("hangs", problem()))
            await asyncio.wait({hanging}, timeout=3)
            hanging.cancel()
            return (await pool("a", problem())).outcome

    assert asyncio.run(run()) is Outcome.CORRECT


def test_a_runaway_process_ends_even_when_its_parent_is_gone():
    code = (
        "import asyncio, os, psutil\n"
        "from offsft.config import VerifyConfig\nfrom offsft.records import Problem\nfrom offsft.verify import open_verifier\n"
        "async def run():\n"
        "    pool = open_verifier(VerifyConfig(timeout_s=1))\n"
        "    p = Problem('', '', '', '7')\n"
        "    await pool('7', p)\n"
        "    work = asyncio.create_task(pool('\\\\boxed{9^9^9^9}', p))\n"
        "    await asyncio.sleep(0.5)\n"
        "    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)\n"
        "    os._exit(0)\n"
        "if __name__ == '__main__': asyncio.run(run())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(left, timeout=60)
    for process in alive:
        process.kill()
    assert alive == []


def test_no_process_is_left_behind():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    asyncio.run(_judged(VerifyConfig(workers=2), ["\\boxed{7}"] * 4))
    left = [c for c in psutil.Process().children(recursive=True) if c.pid not in before]
    assert not [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]
