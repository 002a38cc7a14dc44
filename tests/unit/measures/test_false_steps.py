"""Equations between numbers: what holds, what does not, and what is not judged because people may mean it otherwise."""

import pytest

from offsft.measures.false_steps import check_steps


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7",
        "So 5 boxes * 3 pens = 15 pens.",
        r"\( 5 \times 3 = 15 \)",
        r"\[ 16 - 3 - 4 = 9 \] eggs",
        r"9 \times \$2 = \$18",
        r"\frac{1}{2} \times 10 = 5",
        "The total is $5 + $3 = $8.",
        "10/3 = 3.33",
        "100/7 ≈ 14.3",
        "199/4 \\approx 50",
        "0.33 * 3 ≈ 1.00",
        "3.33 * 3 = 10",
        "50% * 200 = 100",
        "5/20 = 25%",
        "1,200 + 300 = 1,500",
        "5 dollars per hour * 3 hours = 15 dollars",
        "10 x 5 = 50",
        "2(3) + 4 = 10",
        "5! = 120",
        "2^3 = 8",
        "3 * 5 = 15 (since 3 fives)",
        "**Total** = 9 * 2 = **18**",
        "the cost is\n3 + 4\n= 7",
        "- 3 + 4 = 7",
        "2000 / 75 = 26.666666666666668 stones",
        "1. 3 + 4 = 7",
    ],
)
def test_a_step_that_holds_is_counted_as_holding(text):
    steps = check_steps(text)
    assert steps.false == ()
    assert steps.holding == 1


@pytest.mark.parametrize(
    ("text", "false"),
    [
        (r"\( 5 \times 3 = 16 \)", "5 * 3 = 16"),
        ("The total is $5 + $3 = $9.", "5 +  3 =  9"),
        ("1. 3 + 4 = 8", "3 + 4 = 8"),
        ("shoveling driveways: $35 / $7 ≈ $5.095", "35 /  7 ≈  5.095"),
        ("Step 1: 3 + 4 = 8", "3 + 4 = 8"),
        ("x = 3 + 4 = 8", "3 + 4 = 8"),
        ("1.25 * 4 = 5.05", "1.25 * 4 = 5.05"),
        ("(5 + 3)(2) = 17", "(5 + 3)(2) = 17"),
        (r"\frac{1}{2} \times 10 = 6", r"\frac{1}{2} * 10 = 6"),
        ("Total cost = 4 * 5 + 3 = 25 dollars", "4 * 5 + 3 = 25 dollars"),
        ("4 * 2 = 8 hours. 8 * 3 = 25.", "8 * 3 = 25"),
        ("2^3 = 9", "2^3 = 9"),
        ("Ada shares 48 / 6 = 9 candies among 6 friends.", "48 / 6 = 9 candies"),
        ("100 - 20 - 30 = 60", "100 - 20 - 30 = 60"),
    ],
)
def test_a_step_that_does_not_hold_is_named(text, false):
    assert check_steps(text).false == (false,)


@pytest.mark.parametrize(
    "text",
    [
        "2x + 3 = 7",
        "W + 4 = 3",
        "f(3) + 1 = 10",
        "twice 5 + 3 = 13",
        "half of 10 + 2 = 7",
        "log 10 + 5 = 6",
        "3 * 5 = 1 (mod 7)",
        "2 1/2 + 1 = 3.5",
        "9:00 + 2 = 11:00",
        "0900 - 0130 = 0730",
        "20% of 50 = 10",
        "200 + 10% = 220",
        "15 / 90 * 100% = 16.67",
        "1 hour - 20 minutes = 40 minutes",
        "4 pounds - 6 ounces = 58 ounces",
        "$2 - 50 cents = $1.50",
        "5 dozen * 2 = 120",
        "12 m^2 + 3 = 5",
        "25 / 1/3 = 75",
        "7/2 = 4",
        "5 + 5 = 10 more than 3",
        "3 thousand + 2 = 3002",
        r"\sqrt{16} + 1 = 5",
        "5 and 3 = 8",
        "101_2 + 1 = 6",
        "5 - 100 = 95",
        "1/4 cup = 15",
        "1 tray * 2 trays = 48 eggs",
        "the price is -30/3 = 10",
        "items - 300 = 80",
    ],
)
def test_what_may_be_meant_otherwise_is_not_judged(text):
    steps = check_steps(text)
    assert (steps.holding, steps.false) == (0, ())
    assert steps.not_judged == 1


def test_a_running_chain_is_no_false_step():
    steps = check_steps("3 + 4 = 7 * 2 = 14")
    assert (steps.holding, steps.false, steps.not_judged) == (1, (), 1)


@pytest.mark.parametrize("text", ["", "no equation", "5 > 3 and 3 < 5", "a == b", "=" * 2000, "x = y"])
def test_a_text_without_equations_of_numbers_has_no_steps(text):
    steps = check_steps(text)
    assert (steps.holding, steps.false) == (0, ())


def test_a_text_of_signs_and_spaces_is_read_to_its_end():
    hostile = " " * 20_000 + "1 + " * 2000 + "= " * 500 + "(" * 2000 + "1,234" * 1000
    assert check_steps(hostile).false == ()
