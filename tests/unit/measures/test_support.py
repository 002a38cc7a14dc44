"""Answer support: the places that state an answer's value, their tokens, and the log-probs there."""

import pytest

from offsft.measures.spans import TokenSpans
from offsft.measures.stated import stated_answer
from offsft.measures.support import answer_support


def said(response, problem=""):
    """The text at each place, and the text before it."""
    stated = stated_answer(response, problem)
    return [None if place is None else response[: place.end] for place in (stated.first, stated.last)]


@pytest.mark.parametrize(
    ("response", "problem", "first", "last"),
    [
        ("3 * 4 = 12. \\boxed{12}", "3 rows of 4", "3 * 4 = 12", "3 * 4 = 12. \\boxed{12"),
        ("\\boxed{12}", "", "\\boxed{12", "\\boxed{12"),
        ("It costs $1,200. The answer is 1200.", "", "It costs $1,200", "It costs $1,200. The answer is 1200"),
        ("12.00 in all: \\boxed{12}", "", "12.00", "12.00 in all: \\boxed{12"),
        # The problem's own 12 says nothing; the first place is where it is derived, if there is one.
        ("Of 12 eggs, 20 - 8 = 12 stay. \\boxed{12}", "12 eggs", "Of 12 eggs, 20 - 8 = 12", None),
        ("Of 12 eggs all stay. \\boxed{12}", "12 eggs", None, "Of 12 eggs all stay. \\boxed{12"),
        ("so \\frac{1}{2} it is: \\boxed{\\frac{1}{2}}", "", "so \\frac{1}{2}", None),
        ("112 and x12 are not it, \\boxed{12} is", "", "112 and x12 are not it, \\boxed{12", None),
        ("\\boxed{18 \\text{ dollars}}", "", "\\boxed{18", "\\boxed{18"),
    ],
)
def test_the_places_that_state_the_answer(response, problem, first, last):
    found = said(response, problem)
    assert found[0] == first
    if last is not None:
        assert found[1] == last


@pytest.mark.parametrize("response", ["no answer at all", "", "The answer is B."])
def test_an_answer_that_is_not_stated_as_a_value_has_no_place(response):
    assert said(response) == [None, None]


PIECES = ["It", " costs", " $", "1", "2", ".", " \u00e9", "\\boxed", "{", "12", "}", "<|end|>"]


def decode(ids):
    return "".join(PIECES[token] for token in ids)


def test_the_tokens_of_a_span_are_all_that_write_a_part_of_it():
    spans = TokenSpans(range(len(PIECES)), decode)
    text = decode(range(len(PIECES)))
    assert spans.matches(text[: -len("<|end|>")])
    assert not spans.matches("another text")
    start = text.index("12")
    assert list(spans.tokens(start, start + 2)) == [3, 4]
    start = text.rindex("12")
    assert list(spans.tokens(start, start + 2)) == [9]
    assert list(spans.tokens(0, 4)) == [0, 1]


def test_a_character_of_several_tokens_is_found():
    halves = {0: b"a", 1: "\u20ac".encode()[:2], 2: "\u20ac".encode()[2:], 3: b"7"}
    spans = TokenSpans([0, 1, 2, 3], lambda ids: b"".join(halves[i] for i in ids).decode(errors="replace"))
    assert list(spans.tokens(2, 3)) == [3]
    assert list(spans.tokens(1, 2)) == [1, 2]


def test_support_is_the_sum_over_the_tokens_of_the_value_at_each_place():
    text = decode(range(len(PIECES) - 1))
    logprobs = [-0.1] * len(PIECES)
    logprobs[3], logprobs[4], logprobs[9] = -2.0, -3.0, -0.5
    spans = TokenSpans(range(len(PIECES)), decode)
    support = answer_support(stated_answer(text, ""), spans, logprobs)
    assert (support.first, support.last) == (-5.0, -0.5)
