"""Code tests in their published layouts: only tests that ran count, and objects cross the boundary by value."""

import asyncio
import json

import pytest

from offsft.config import VerifyConfig
from offsft.errors import ConfigError
from offsft.records import Outcome, Problem
from offsft.verify import open_verifier
from offsft.verify.code_tests import read_tests, why_untestable

RIGHT, WRONG, ERROR, NONE = Outcome.CORRECT, Outcome.WRONG, Outcome.ERROR, Outcome.NO_ANSWER
ADD, SUBTRACT = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
pytestmark = pytest.mark.needs("bwrap")


def judge(response, check, **code):
    async def run():
        settings = VerifyConfig.model_validate({"kind": "code", "timeout_s": 20, "code": code})
        async with open_verifier(settings) as verifier:
            return await verifier(response, Problem("", "", "", "", check))

    return asyncio.run(run())


def outcome(code, tests, **check):
    return judge(f"```python\n{code}\n```", {"tests": tests, **check}).outcome


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("def check(candidate):\n    assert candidate(1, 2) == 3\n", "check.entry_point names the function"),
        ("# the checks are in another file\n", "no test ran"),
        ("import unittest\nclass TestAdd(unittest.TestCase):\n    def check_sum(self):\n        assert add(1, 2) == 3", "no test ran"),
        ("import unittest\nclass T(unittest.TestCase):\n    @unittest.skip('no')\n    def test_it(self): assert add(1, 2) == 3", "no test ran"),
        ("add(1, 2)", "no test ran"),
        ("if False:\n    assert add(1, 2) == 3", "no test ran"),
        ("for case in []:\n    assert add(*case) == 3", "no test ran"),
        ("assert 1 + 2 == 3", "use nothing that the solution defines"),
        ("def test_it():\n    assert True", "use nothing that the solution defines"),
        ("def test_it():\n    return\n    assert add(1, 2) == 3", "use nothing that the solution defines"),
        ("def add(a, b): return a + b\nassert add(1, 2) == 3", "use nothing that the solution defines"),
        ("", "no check.tests"),
        ([], "no check.tests"),
        (7, "neither text"),
        ([{"in": 1}], "not a list of cases"),
    ],
)  # fmt: skip
def test_what_tests_nothing_is_an_error_and_never_correct(tests, why):
    for code in (ADD, SUBTRACT):
        verdict = judge(f"```python\n{code}\n```", {"tests": tests})
        assert verdict.outcome is ERROR
        assert why in verdict.why


PROMPT = 'def add(a, b):\n    """Add."""\n'
LAYOUTS = {
    "HumanEval": {"test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n", "entry_point": "add"},
    "HumanEval, called": {"tests": "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n"},
    "MBPP": {"test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == limit"], "test_setup_code": "limit = 0"},
    "MBPP+": {"test": "def assertion(out, exp, atol):\n    assert out == exp\n\nfor i, inp in enumerate([[1, 2]]):\n    assertion(add(*inp), [3][i], 0)\n", "test_imports": ["import math"]},
    "KodCode": {"test": "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"},
    "unittest": {"tests": "import unittest\nclass TestAdd(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(add(1, 2), 3)"},
    "raises": {"tests": "if add(1, 2) != 3:\n    raise ValueError('wrong')"},
    "LiveCodeBench": {"public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]), "func_name": "add"},
    "APPS": {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [0, 0]], "outputs": [[3], [0]]})},
    "cases": {"tests": [{"input": "1\n2", "output": "3"}], "entry_point": "add"},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_published_layout_is_read(layout):
    assert judge(f"```python\n{ADD}```", LAYOUTS[layout]).outcome is RIGHT
    assert judge(f"```python\n{SUBTRACT}```", LAYOUTS[layout]).outcome is WRONG
    assert judge("```python\ndef sub(a, b): return a - b\n```", LAYOUTS[layout]).outcome is WRONG


def test_a_method_of_the_class_solution_is_called():
    code = "class Solution:\n    def twoSum(self, nums, target):\n        return (0, 1) if sum(nums) == target else []"
    cases = [{"input": "[2, 7]\n9", "output": "[0, 1]", "testtype": "functional"}]
    assert outcome(code, cases, entry_point="twoSum") is RIGHT
    assert outcome(code.replace("(0, 1)", "(1, 0)"), cases, entry_point="twoSum") is WRONG


@pytest.mark.parametrize(
    "code",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\ndata = sys.stdin.read().split()\nsys.stdout.write(str(sum(map(int, data))))",
        "import sys, os\nprint(sum(map(int, sys.stdin.buffer.read().split())))\nsys.exit(0)",
        "import os\nos.write(1, str(sum(map(int, open(0).read().split()))).encode())",
        "def main():\n    print(float(sum(map(int, input().split()))))\nif __name__ == '__main__':\n    main()",
    ],
)
def test_a_program_that_reads_and_prints_is_run_for_each_case(code):
    cases = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5\n", "output": "10", "testtype": "stdin"}]
    assert outcome(code, cases) is RIGHT
    assert outcome(code, [*cases, {"input": "1 1", "output": "3"}]) is WRONG


def test_what_is_wrong_with_a_case_is_said():
    cases = {"inputs": ["1 2", "3 4"], "outputs": ["3", "7"]}
    verdict = judge("```python\nprint(sum(map(int, input().split())) % 5)\n```", {"tests": cases})
    assert (verdict.outcome, verdict.why) == (WRONG, "case 2 of 2: prints '2', not '7'")
    verdict = judge("```python\nprint(1 / 0)\n```", {"tests": cases})
    assert verdict.why == "case 1 of 2: RuntimeError: ZeroDivisionError: division by zero"


BY_VALUE = {
    "Counter": ("from collections import Counter\ndef f(): return Counter('aab')", "assert f() == {'a': 2, 'b': 1} and f().most_common(1) == [('a', 2)]"),
    "defaultdict": ("from collections import defaultdict\ndef f():\n    d = defaultdict(list)\n    d[1].append(2)\n    return d", "assert f() == {1: [2]}"),
    "OrderedDict": ("from collections import OrderedDict\ndef f(): return OrderedDict(a=1)", "assert f() == {'a': 1}"),
    "deque": ("from collections import deque\ndef f(): return deque([1, 2])", "assert list(f()) == [1, 2] and f()[0] == 1"),
    "Fraction": ("from fractions import Fraction\ndef f(): return Fraction(1, 3)", "from fractions import Fraction\nassert f() + f() == Fraction(2, 3)"),
    "Decimal": ("from decimal import Decimal\ndef f(): return Decimal('0.10')", "assert abs(f() * 10 - 1) < 1"),
    "dates": ("import datetime\ndef f(): return datetime.date(2026, 2, 28), datetime.timedelta(days=1)", "import datetime\nday, more = f()\nassert day + more == datetime.date(2026, 3, 1)"),
    "range": ("def f(): return range(3)", "assert f() == range(3) and list(f()) == [0, 1, 2]"),
    "views": ("def f(): return {1: 2}.keys()", "assert f() == {1}"),
    "namedtuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return [P(1, 2)]", "assert f() == [(1, 2)] and f()[0].x == 1 and f()[0][1] == 2"),
    "a list of its own": ("class L(list):\n    def first(self): return self[0]\ndef f(): return L([1, 2])", "assert f() == [1, 2] and f().first() == 1 and len(f()) == 2"),
    "a dict of its own": ("class D(dict): pass\ndef f(): return D(a=1)", "assert f() == {'a': 1}"),
    "a number of its own": ("class N(int): pass\ndef f(): return N(7)", "assert f() == 7 and f() < 8 and f() + 1 == 8"),
    "a dataclass": ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x)", "assert f(1) == P(1) and f(1) != P(2)"),
    "an enum": ("from enum import Enum\nclass C(Enum):\n    RED = 1\ndef f(): return C.RED", "assert f() == C.RED and f() is not None and f().value == 1"),
    "a generator": ("def f():\n    yield from (1, 2)", "assert list(f()) == [1, 2]"),
    "what is handed over": ("from collections import deque\ndef f(d): d.append(3)", "from collections import deque\nd = deque([1])\nf(d)\nassert list(d) == [1, 3]"),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_VALUE)
def test_values_of_standard_classes_cross_by_value(name):
    assert judge(f"```python\n{BY_VALUE[name][0]}\n```", {"tests": BY_VALUE[name][1]}).why == "all tests passed"


def test_objects_of_a_class_do_what_the_language_asks_of_them():
    code = """
class Bag:
    def __init__(self, *items): self.items = list(items)
    def __contains__(self, item): return item in self.items
    def __add__(self, other): return Bag(*self.items, *other.items)
    def __mul__(self, times): return Bag(*self.items * times)
    def __eq__(self, other): return self.items == other.items
    def __lt__(self, other): return len(self.items) < len(other.items)
    def __bool__(self): return bool(self.items)
    def __delitem__(self, place): del self.items[place]
    def __enter__(self): return self
    def __exit__(self, *_): self.items.append("left")
"""
    tests = """
assert 1 in Bag(1, 2) and 3 not in Bag(1)
assert Bag(1) + Bag(2) == Bag(1, 2) and Bag(1) * 2 == Bag(1, 1) and Bag(1) != Bag(2)
assert Bag(1) < Bag(1, 2) and sorted([Bag(1, 2), Bag(1)])[0] == Bag(1)
assert not Bag() and Bag(1)
bag = Bag(1, 2)
del bag[0]
with bag as entered: assert entered == Bag(2)
bag.items = [7]
assert bag == Bag(7) and isinstance(bag, Bag) and not isinstance(3, Bag)
"""
    assert judge(f"```python\n{code}\n```", {"tests": tests}).why == "all tests passed"


LIAR = """
class Liar(float):
    def __eq__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = __eq__
    def __sub__(self, other): return Liar()
    __rsub__ = __add__ = __abs__ = __sub__
    def __abs__(self): return Liar()
    def __hash__(self): return 0
"""


@pytest.mark.parametrize("base", ["float", "object", "list", "dict"])
@pytest.mark.parametrize(
    "test",
    ["add(1, 2) == 3", "abs(add(1, 2) - 3) < 1e-6", "3 - add(1, 2) < 1e-6", "2.9 < add(1, 2) < 3.1", "add(1, 2) in (3, 4)", "3 == add(1, 2)",
     "add(1, 2) >= 3", "{add(1, 2)} == {3}", "[add(1, 2)] == [3]"],
)  # fmt: skip
def test_an_object_that_says_yes_to_all_passes_no_comparison(test, base):
    liar = LIAR.replace("float", base)
    assert outcome(liar + "def add(a, b): return Liar()", f"assert {test}") is WRONG
    assert (
        outcome(
            liar
            + "class add(Liar):\n    def __init__(self, *a): pass\n    def __new__(cls, *a): return super().__new__(cls)",
            f"assert {test}",
        )
        is WRONG
    )


def test_what_the_tests_lack_is_an_error_and_what_the_solution_lacks_is_wrong():
    verdict = judge(f"```python\n{ADD}```", {"tests": "import no_such_package\nassert add(1, 2) == 3"})
    assert verdict.outcome is ERROR
    assert "verify.code.packages" in verdict.why
    assert outcome(f"import no_such_package\n{ADD}", "assert add(1, 2) == 3") is WRONG
    assert (
        outcome(f"def add(a, b):\n    import no_such_package\n{ADD}".replace(ADD, ""), "assert add(1, 2) == 3") is WRONG
    )
    assert outcome(ADD, "from solution import multiply\nassert multiply(1, 2) == 2") is WRONG


def test_packages_are_let_in_by_setting():
    tests = "import numpy as np\nassert np.allclose(add(np.array([1.5]), 2), 3.5)\nassert add(np.int64(1), 2) == 3"
    assert judge(f"```python\nimport numpy\n{ADD}```", {"tests": tests}, packages=["numpy"]).why == "all tests passed"
    assert judge(f"```python\n{SUBTRACT}```", {"tests": tests}, packages=["numpy"]).outcome is WRONG
    with pytest.raises(ConfigError, match="no-such-package is not installed here"):
        open_verifier(VerifyConfig.model_validate({"kind": "code", "code": {"packages": ["no-such-package"]}}))


@pytest.mark.parametrize(
    "check",
    [
        {"tests": [{"input": "1"}]},
        {"tests": {"inputs": [1], "outputs": []}},
        {"tests": [{"input": "x", "output": "1"}], "entry_point": "f"},
        {"tests": [{"input": "1", "output": "1", "testtype": "functional"}]},
        {"tests": 7},
        {},
    ],
)
def test_tests_of_no_known_form_are_refused_in_one_line(check):
    with pytest.raises(ValueError, match="check") as caught:
        read_tests(check)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "check",
    [
        {"tests": "def check(candidate):\n    assert candidate(1) == 1"},
        {"tests": "# elsewhere"},
        {"tests": "import unittest\nclass T(unittest.TestCase):\n    def check_sum(self):\n        pass"},
        {"tests": "assert 1 + 1 == 2"},
        {"tests": "assert add("},
        {"tests": "add(1, 2)"},
        {},
    ],
)
def test_tests_that_can_touch_no_solution_are_seen_without_running_them(check):
    assert why_untestable(check)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_testable(layout):
    assert why_untestable(LAYOUTS[layout]) is None


def test_a_function_with_a_built_in_name_is_tested_where_the_tests_use_nothing_else():
    assert outcome("def sum(a, b):\n    return b - a", "assert sum(10, 15) == 5") is RIGHT
    assert outcome("def sum(a, b):\n    return 0", "assert sum(10, 15) == 5") is WRONG
    assert outcome("def add(a, b): return 0\ndef all(xs): return True", "assert all([add(1, 2) == 3])") is WRONG
    assert outcome("def all(xs): return True", "assert all([add(1, 2) == 3])") is WRONG
    assert outcome("def sum(a, b):\n    return b - a", [{"input": "10\n15", "output": "5"}], entry_point="sum") is RIGHT
