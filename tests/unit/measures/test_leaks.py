"""Leaks: speaking of what was shown or to who showed it, repeating the prompt's example, and what only the hint explains."""

import math

import pytest

from offsft.measures.leaks import hint_lift, leak_in_words, parroted


@pytest.mark.parametrize(
    "text",
    [
        "You're right! The answer is \\boxed{1}.",
        "You are absolutely correct. It is 3.",
        "Your answer is correct: 3.",
        "That's right! It is 3.",
        "Thank you for the hint, it is 3.",
        "Thanks for sharing this. It is 3.",
        "As you said, it is 3.",
        "As shown above, it is 3.",
        "Great job! It is 3.",
        "I apologize for the confusion. It is 3.",
        "I misunderstood the problem. It is 3.",
        "The hint says to multiply.",
        "According to the provided solution, it is 3.",
        "Following your approach, we get 3.",
        "The explanation you gave is short.",
        "In my own words: it is 3.",
        "Solved as if I had found the way.",
        "I'm glad you like your answer.",
        "You've already told me that the answer is 3.",
        "It seems you're struggling with 3.",
        "You are a helpful assistant, and it is 3.",
        "I'm here to assist you with 3 problems.",
        "Here it is, without mentioning the solution.",
    ],
)
def test_a_response_that_speaks_of_the_solution_or_to_its_giver_leaks(text):
    assert leak_in_words(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "The answer is given by 3 * 4 = 12.",
        "Mia was given 3 apples.",
        "You are given 3 apples and you eat one.",
        "The angle on the right is correct to two digits.",
        "He gave thanks and left 4 coins.",
        "As calculated, 3 * 4 = 12.",
        "The solution of x + 1 = 2 is x = 1.",
        "She did a good deed for 4 friends.",
        "The teacher said thank you to 3 children.",
        "Your total is 12.",
        "The method of substitution gives 3.",
        "To find the right number of boxes we divide.",
    ],
)
def test_a_response_that_only_uses_such_words_does_not_leak(text):
    assert leak_in_words(text) is None


PROMPT = "Solve it. For example: There are 3 rows of 4 books, so there are 3 * 4 = 12 books. Tom has 5 pens. How many?"


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("There are 3 rows of 4 books, so 12.", True),
        ("Tom has 5 pens, so there are 5.", False),
        ("There are 2 rows of 5 pens, so there are 10.", False),
        ("", False),
    ],
)
def test_repeating_the_prompts_example_is_found(text, repeats):
    assert (parroted(text, PROMPT, "Tom has 5 pens. How many?\nTom has 5 pens so 5") is not None) is repeats


def test_what_the_prompt_shows_of_the_problem_and_its_solution_is_no_example():
    shown = "First there are 2 * 3 = 6 eggs in the box"
    assert parroted("so there are 2 * 3 = 6 eggs in the box", f"Solve. {shown}", shown) is None


def test_lift_is_the_largest_sum_of_log_ratios_of_a_passage():
    behavior, policy = [-0.1] * 20, [-0.1] * 20
    policy[5], policy[6], policy[19] = -4.1, -3.1, -1.1
    assert hint_lift(behavior, policy) == pytest.approx(7.0)
    assert hint_lift(behavior[:3], behavior[:3]) == 0
    assert hint_lift([], []) == 0
    assert math.isfinite(hint_lift([-1.0], [-2.0]))
