"""The Python block of a response that is the solution: among several, the one that defines the tested names."""

import pytest

from offsft.verify.python_code import extract_code

ADD = "def add(a, b):\n    return a + b\n"
TEST = "def test_add():\n    assert add(1, 2) == 3\n"
OTHER = "def add_all(xs):\n    return sum(xs)\n"


def fenced(*blocks, language="python"):
    return "\n\nSo:\n\n".join(f"```{language}\n{block}```" for block in blocks)


@pytest.mark.parametrize("names", [(), ("add",)])
@pytest.mark.parametrize(
    "response",
    [
        fenced(ADD) + "\n\nYou can test it:\n\n" + fenced(TEST),
        fenced(ADD) + "\n\nUse it:\n\n" + fenced("print(add(1, 2))\n"),
        fenced(ADD) + "\n\n" + fenced("class TestAdd:\n    def test_it(self): ...\n"),
        f"<think>{fenced('def add(a, b): return 0')}</think>{fenced(ADD)}",
        fenced("$ pip install x\n", language="bash") + fenced(ADD),
        ADD + "```",
        "```python\n" + ADD,
        f"Here it is:\n\n{ADD}\nThis adds two numbers.",
        f"{ADD}\nHope this helps!",
        ADD,
        fenced(ADD, language="py"),
        fenced(ADD, language=""),
    ],
)
def test_the_block_with_the_solution_is_taken(response, names):
    code = extract_code(response, names)[0]
    assert code is not None
    space = {}
    exec(code, space)
    assert space["add"](1, 2) == 3


def test_what_the_tests_use_decides_between_blocks():
    response = fenced(ADD, OTHER)
    assert extract_code(response, ("add",))[0] == ADD
    assert extract_code(response, ("add_all",))[0] == OTHER
    assert extract_code(response)[0] == OTHER
    assert extract_code(fenced(ADD, ADD.replace("+", "-")), ("add",))[0] == ADD.replace("+", "-"), "the last one counts"
    assert extract_code(fenced(ADD, OTHER), ("add", "add_all"))[0] == f"{ADD}\n{OTHER}"
    assert extract_code(ADD + "\nor better:\n" + fenced(OTHER), ("add",)) == (ADD, "response")


def test_a_value_that_the_tests_use_is_looked_for_too():
    assert extract_code(fenced("LIMIT = 3\n", "print(LIMIT)\n"), ("LIMIT",))[0] == "LIMIT = 3\n"


@pytest.mark.parametrize(
    "body", ["    return a + b\n", "return a + b", "\n    return a + b", fenced("    return a + b\n")]
)
def test_a_response_may_go_on_from_the_prompt(body):
    prompt = 'def add(a, b):\n    """Add."""\n'
    code, where = extract_code(body, ("add",), prompt=prompt)
    space = {}
    exec(code, space)
    assert (space["add"](1, 2), where) == (3, "continuation of the prompt")


@pytest.mark.parametrize(
    "response", ["", "I do not know.", "<think>" + fenced(ADD), fenced("ls\n", language="bash"), "x = 1", "def broken("]
)
def test_a_response_without_python_has_no_solution(response):
    assert extract_code(response, ("add",))[0] is None
