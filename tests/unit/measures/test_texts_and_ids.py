"""Copying, variety, doubt and bare answers: counts over token ids and words, against slow and readable ones."""

import random

import pytest

from offsft.measures.bare import is_bare
from offsft.measures.copying import GRAM, longest_common_span, shared_grams
from offsft.measures.doubt import doubt_rate, words_of_doubt
from offsft.measures.variety import MOST_TOKENS, Variety


def slow_longest(left, right):
    return max(
        (
            n
            for start in range(len(left))
            for n in range(1, len(left) - start + 1)
            if any(left[start : start + n] == right[at : at + n] for at in range(len(right) - n + 1))
        ),
        default=0,
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_longest_common_span_is_that_of_a_slow_search(seed):
    draw = random.Random(seed)
    left, right = ([draw.randrange(3) for _ in range(draw.randrange(20))] for _ in range(2))
    assert longest_common_span(left, right) == slow_longest(left, right)


def test_the_share_of_the_experts_n_grams():
    expert = list(range(100, 120))
    assert shared_grams(expert, expert) == 1
    assert shared_grams(list(range(20)), expert) == 0
    assert shared_grams([*expert[:6], 1, 2, 3, 4], expert) == pytest.approx(2 / 6)
    assert shared_grams([1] * (GRAM - 1), expert) is None


def test_variety_is_the_share_of_distinct_n_grams_and_stops_counting():
    variety = Variety()
    assert variety.share is None
    variety.add([1, 2, 3, 4, 5])
    assert variety.share == 1
    variety.add([1, 2, 3, 4])
    assert variety.share == pytest.approx(2 / 3)
    variety.add([7] * 2 * MOST_TOKENS)
    assert variety.tokens == MOST_TOKENS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Wait, that is wrong. Let me check: maybe 4.", 4),
        ("I think it is 3. Hmm, actually not sure.", 4),
        ("He waits for the actual bus. 3 + 4 = 7.", 0),
    ],
)
def test_words_of_doubt_are_counted(text, words):
    assert words_of_doubt(text) == words
    assert doubt_rate(words, 0) is None
    assert doubt_rate(words, 500) == 2 * words


SOLUTION = "5 * 7 = 35. \\boxed{35}"


@pytest.mark.parametrize(
    ("response", "bare"),
    [
        ("You're right! The answer is \\boxed{35}.", True),
        ("\\boxed{35}", True),
        ("She has 35 apples. The answer is \\boxed{35}", True),
        ("5 times 7 makes 35. \\boxed{35}", False),
        ("Five boxes of seven: \\boxed{35}", False),
        ("It is a classic puzzle.", False),
    ],
)
def test_an_answer_without_any_other_number_is_bare_where_the_expert_derives_it(response, bare):
    assert is_bare(response, SOLUTION, "35") is bare


def test_nothing_says_what_is_bare_where_the_expert_has_no_number_either():
    assert is_bare("\\boxed{B}", "It is the second. \\boxed{B}", "B") is None
