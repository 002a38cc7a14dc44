"""Training problems that contain a benchmark's, compared with a search word by word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.data.overlap import Match, Overlap

TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), min_size=1, max_size=5)


def runs(text, length):
    words = text.split()
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


def slow_match(problems, text, words, share):
    best = None
    for name, problem in problems:
        length = min(words, len(problem.split()))
        if length:
            grams = runs(problem, length)
            found = len(grams & runs(text, length)) / len(grams)
            if found >= share and (best is None or found > best.share):
                best = Match(name, found)
    return best


@given(TEXTS, TEXTS, st.integers(1, 5), st.sampled_from([0.2, 0.5, 1.0]))
def test_it_finds_what_a_slow_search_finds(suite, texts, words, share):
    problems = [(str(number), text) for number, text in enumerate(suite)]
    want = [slow_match(problems, text, words, share) for text in texts]
    assert Overlap(problems, words=words, share=share).match(texts) == want


def test_case_punctuation_and_typesetting_do_not_hide_a_problem():
    suite = [("m-1", "Find $\\left(\\dfrac{1}{2}\\right)^3$, where $x = 4$.")]
    found = Overlap(suite, words=4, share=1.0).match(["find (\\frac{1}{2})^{3} where x=4", "Find something else"])
    assert found == [Match("m-1", 1.0), None]


def test_a_sequence_does_not_reach_from_one_text_into_the_next():
    index = Overlap([("s", "one two three four")], words=4, share=1.0)
    assert index.match(["one two", "three four", "zero one two three four five"]) == [None, None, Match("s", 1.0)]


def test_an_empty_benchmark_and_empty_texts_match_nothing():
    assert Overlap([], words=8, share=0.5).match(["a b"]) == [None]
    assert Overlap([("s", "..."), ("t", "a b")], words=8, share=0.5).match(["", "b a"]) == [None, None]
    assert Overlap([("t", "a b")], words=8, share=0.5).match([]) == []


def test_a_benchmark_may_not_be_matched_by_nothing():
    with pytest.raises(AssertionError):
        Overlap([], words=8, share=0.0)
