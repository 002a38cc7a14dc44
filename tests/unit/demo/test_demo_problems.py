"""The generated problems: correct, distinct, and held out where they say so."""

import json
import re

import pytest

from offsft.demo.problems import Difficulty, generate, split_of, write_jsonl
from offsft.demo.templates import NAMES, TEMPLATES
from offsft.errors import DataError
from offsft.verify.boxed import last_boxed

TRAIN = generate(600, split="train", seed=0)
HELD_OUT = generate(300, split="held_out", seed=0)


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


def shape(text):
    for name in NAMES:
        text = re.sub(rf"\b{name}\b", "N", text)
    return re.sub(r"\d+", "#", text)


@pytest.mark.parametrize("row", TRAIN[:200] + HELD_OUT[:100], ids=lambda row: row["problem"][:20])
def test_each_step_of_a_solution_is_right_and_the_last_is_the_answer(row):
    steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", row["solution"])
    assert 1 <= len(steps) <= 3
    for left, sign, right, result in steps:
        left, right, result = int(left), int(right), int(result)
        assert {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[sign] == result >= 1
    assert steps[-1][3] == row["answer"] == last_boxed(row["solution"])


def test_every_number_of_a_problem_is_used():
    for row in TRAIN:
        used = numbers(row["solution"].split("\\boxed")[0])
        assert all(number in used for number in numbers(row["problem"]))


def test_all_are_different_also_across_the_splits():
    problems = [row["problem"] for row in TRAIN + HELD_OUT]
    assert len(set(problems)) == len(problems)


def test_the_splits_share_no_numbers_and_not_all_templates():
    trained = {tuple(sorted(numbers(row["problem"]))) for row in TRAIN}
    held_out = {tuple(sorted(numbers(row["problem"]))) for row in HELD_OUT}
    assert not trained & held_out
    shapes = {shape(row["problem"]) for row in TRAIN}
    new = [row for row in HELD_OUT if shape(row["problem"]) not in shapes]
    assert len(new) > 30
    assert len(new) < len(HELD_OUT)


def test_a_template_that_is_held_out_is_never_trained_on():
    held_out = {shape(t.text.format(name="Mia", a=2, b=2, c=2, d=2)) for t in TEMPLATES if t.held_out}
    assert not held_out & {shape(row["problem"]) for row in generate(3000, split="train", seed=2)}


def test_there_are_thirty_templates_or_more_and_a_fair_number_of_each_length():
    assert len(TEMPLATES) >= 30
    assert sum(template.held_out for template in TEMPLATES) == 9
    assert len({template.text for template in TEMPLATES}) == len(TEMPLATES)
    for steps in (1, 2, 3):
        assert sum(len(template.steps) == steps for template in TEMPLATES) >= 9
        assert any(template.held_out for template in TEMPLATES if len(template.steps) == steps)


def test_the_same_seed_gives_the_same_problems():
    assert generate(50, split="train", seed=3) == generate(50, split="train", seed=3)
    assert generate(50, split="train", seed=3) != generate(50, split="train", seed=4)


def test_difficulty_sets_steps_and_numbers():
    rows = generate(100, split="train", seed=0, difficulty=Difficulty((0, 0, 1), largest=6))
    assert all(row["solution"].count("=") == 3 for row in rows)
    assert max(number for row in rows for number in numbers(row["problem"])) <= 6


def test_asking_for_more_than_there_are_says_so():
    with pytest.raises(DataError, match="held_out problems were found of the 5000 asked for"):
        generate(5000, split="held_out", seed=0, difficulty=Difficulty((1, 0, 0), largest=4))


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_there_are_thousands_of_different_problems(split):
    rows = generate(5000, split=split, seed=1)
    assert len({row["problem"] for row in rows}) == 5000
    assert all(split_of(numbers(row["problem"])) == split for row in rows)


def test_rows_survive_the_file(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", TRAIN)
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == TRAIN
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_quarter_of_the_number_tuples_is_held_out():
    share = sum(split_of([a, b]) == "held_out" for a in range(2, 40) for b in range(a, 40)) / (38 * 39 / 2)
    assert 0.2 < share < 0.3


def test_plain_english():
    for row in TRAIN + HELD_OUT:
        assert row["problem"][0].isupper()
        assert row["problem"].endswith("?")
        assert "  " not in row["problem"]
        assert "{" not in row["problem"]
        # No singular noun after a number, and no "a" before a vowel ("an hour" is the one exception to the letter).
        assert not re.search(r"\b1 [a-z]", row["problem"])
        assert not re.search(r"\ba [aeiou]|\ban (?!hour)[^aeiou]", row["problem"], re.IGNORECASE)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_shares_of_steps_are_those_asked_for_in_both_splits(split):
    rows = generate(400, split=split, seed=1, difficulty=Difficulty((0.6, 0.25, 0.15), largest=12))
    shares = [sum(row["solution"].count(" = ") == steps for row in rows) / 400 for steps in (1, 2, 3)]
    assert shares == pytest.approx([0.6, 0.25, 0.15], abs=0.07)
