"""Generated programming problems: one small Python function each, with a solution and tests that it passes."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from offsft.demo.problems import Split
from offsft.errors import DataError


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: what the function does, its body with `{n}`, a callable twin, and whether it takes a list."""

    name: str
    does: str
    body: str
    twin: Callable[[Any, int], Any]
    takes_list: bool = False


KINDS = (
    Kind("add", "takes a number x and returns x plus {n}", "return x + {n}", lambda x, n: x + n),
    Kind("subtract", "takes a number x and returns x minus {n}", "return x - {n}", lambda x, n: x - n),
    Kind("multiply", "takes a number x and returns x times {n}", "return x * {n}", lambda x, n: x * n),
    Kind("remainder", "takes a whole number x and returns the remainder of x divided by {n}", "return x % {n}", lambda x, n: x % n),
    Kind("is_multiple", "takes a whole number x and returns True if x is a multiple of {n}, else False", "return x % {n} == 0", lambda x, n: x % n == 0),
    Kind("at_most", "takes a number x and returns x, but {n} if x is larger", "return min(x, {n})", min),
    Kind("is_larger", "takes a number x and returns True if x is larger than {n}, else False", "return x > {n}", lambda x, n: x > n),
    Kind("power", "takes a number x and returns x to the power of {n}", "return x ** {n}", lambda x, n: x**n),
    Kind("first", "takes a list x and returns its first {n} items", "return x[:{n}]", lambda x, n: x[:n], True),
    Kind("without_first", "takes a list x and returns it without its first {n} items", "return x[{n}:]", lambda x, n: x[n:], True),
    Kind("count", "takes a list x and returns how many of its items equal {n}", "return x.count({n})", lambda x, n: x.count(n), True),
    Kind("larger_items", "takes a list x and returns a list of its items that are larger than {n}", "return [item for item in x if item > {n}]", lambda x, n: [item for item in x if item > n], True),
    Kind("add_to_all", "takes a list x and returns a list with {n} added to each item", "return [item + {n} for item in x]", lambda x, n: [item + n for item in x], True),
)  # fmt: skip
_LARGEST = 60
_CASES = 4


def generate_code(n: int, *, split: Split, seed: int) -> list[dict[str, str]]:
    """Generate `n` distinct problems as rows with `problem`, `solution`, `tests`; the same for the same arguments.

    The two splits share no pair of kind and number: of each kind, one number in four is for held-out problems.

    Raises:
        DataError: there are fewer than `n` distinct problems.
    """
    draw = random.Random(f"code/{split}/{seed}")
    pairs = [
        (kind, number)
        for kind in KINDS
        for number in range(2, _LARGEST if kind.name != "power" else 6)
        if (number % 4 == 1) is (split == "held_out")
    ]
    if n > len(pairs):
        raise DataError(f"there are {len(pairs)} different {split} problems of code, not {n}; ask for fewer")
    return [_row(kind, number, draw) for kind, number in draw.sample(pairs, n)]


def _row(kind: Kind, number: int, draw: random.Random) -> dict[str, str]:
    name = f"{kind.name}_{number}"
    if kind.takes_list:
        inputs: list[Any] = [
            [draw.choice([number, draw.randint(0, _LARGEST)]) for _ in range(draw.randint(0, 8))] for _ in range(_CASES)
        ]
    else:
        # The number itself and a neighbour expose a wrong comparison.
        inputs = [number, number + 1, 0, draw.randint(0, 2 * _LARGEST)]
    tests = [f"assert {name}({each!r}) == {kind.twin(each, number)!r}" for each in inputs]
    return {
        "problem": f"Write a Python function {name}(x) that {kind.does.format(n=number)}.",
        "solution": f"```python\ndef {name}(x):\n    {kind.body.format(n=number)}\n```",
        "tests": "\n".join(tests),
    }
