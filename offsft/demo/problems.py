"""Generated arithmetic word problems, one to three steps, each with a terse worked solution and a boxed answer."""

import json
import operator
import random
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from offsft.demo.templates import NAMES, TEMPLATES, Template
from offsft.errors import DataError
from offsft.storage.paths import StoragePath, write_text_atomically

Split = Literal["train", "held_out"]

_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
_PATIENCE_DRAWS = 50_000
"""Consecutive draws without a new problem before `generate` gives up; about a second."""
_STEP = re.compile(r"([x-z]) = ([a-dx-z]) ([-+*/]) ([a-dx-z])")


@dataclass(frozen=True, slots=True)
class Difficulty:
    """The weights of problems with one, two and three steps, and the range of numbers: from 2 to `largest`.

    Dividends are products. The weights apply to the draws. Duplicates, numbers of the other split and stories that do
    not work out are drawn again, which shifts the shares. Of 5,000 default training problems 42 % have one step, not
    60 %.
    """

    step_shares: tuple[float, float, float] = (0.6, 0.25, 0.15)
    largest: int = 8

    def __post_init__(self) -> None:
        assert min(self.step_shares) >= 0 < sum(self.step_shares), self.step_shares
        assert self.largest >= 4, self.largest


def generate(n: int, *, split: Split, seed: int, difficulty: Difficulty | None = None) -> list[dict[str, str]]:
    """Generate `n` distinct problems as rows with `problem`, `solution`, `answer`; the same for the same arguments.

    The two splits share no tuple of numbers: the tuple itself decides whether a problem is for training (three in
    four) or held out. Nine of the 37 templates, three of each length, are for held-out problems only.

    Raises:
        DataError: there are fewer than `n` distinct problems of this difficulty.
    """
    difficulty = difficulty or Difficulty()
    draw = random.Random(f"{split}/{seed}")
    pools = [
        [t for t in TEMPLATES if len(t.steps) == steps and (split == "held_out" or not t.held_out)]
        for steps in (1, 2, 3)
    ]
    shares = list(difficulty.step_shares)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < n and any(shares):
        # First the number of steps, then draws until one fits: harder templates reject more numbers, and would
        # otherwise be rarer than their share.
        (steps,) = draw.choices(range(len(pools)), shares)
        row = _new_instance(pools[steps], draw, split, difficulty.largest, rows)
        if row is None:
            shares[steps] = 0.0
        else:
            rows[row["problem"]] = row
    if len(rows) < n:
        raise DataError(
            f"only {len(rows)} different {split} problems were found of the {n} asked for, with numbers up to"
            f" {difficulty.largest}; ask for fewer"
        )
    return list(rows.values())


def split_of(numbers: Sequence[int]) -> Split:
    """The split that a tuple of numbers belongs to, whatever the template."""
    return "held_out" if random.Random(repr(sorted(numbers))).random() < 0.25 else "train"


def write_jsonl(path: StoragePath, rows: list[dict[str, str]]) -> None:
    """Write one row per line; the file appears whole."""
    write_text_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _new_instance(
    pool: list[Template], draw: random.Random, split: Split, largest: int, known: Container[str]
) -> dict[str, str] | None:
    """A new problem of the pool, or None if the pool seems to be exhausted."""
    for _ in range(_PATIENCE_DRAWS):
        row = _instance(draw.choice(pool), draw, split, largest)
        if row is not None and row["problem"] not in known:
            return row
    return None


def _instance(template: Template, draw: random.Random, split: Split, largest: int) -> dict[str, str] | None:
    """Fill the template with drawn numbers and a name; None if they do not fit it or belong to the other split."""
    letters = sorted({letter for letter in "abcd" if f"{{{letter}}}" in template.text})
    values = {letter: draw.randint(2, largest) for letter in letters}
    name = draw.choice(NAMES)
    if "/" in template.steps[0]:
        values["a"] *= values["b"]
    if split_of(list(values.values())) != split:
        return None
    lines = []
    for step in template.steps:
        result, left, sign, right = _parse(step)
        if sign == "/" and values[left] % values[right]:
            return None
        values[result] = _OPERATORS[sign](values[left], values[right])
        if values[result] < 1:
            return None
        lines.append(f"{values[left]} {sign} {values[right]} = {values[result]}")
    answer = values[_parse(template.steps[-1])[0]]
    return {
        "problem": template.text.format(name=name, **{letter: values[letter] for letter in letters}),
        "solution": f"{'; '.join(lines)}. \\boxed{{{answer}}}",
        "answer": str(answer),
    }


def _parse(step: str) -> tuple[str, str, str, str]:
    match = _STEP.fullmatch(step)
    assert match is not None, step
    return match[1], match[2], match[3], match[4]
