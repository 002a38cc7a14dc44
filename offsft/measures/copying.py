"""Copying: what a response has in common with the expert's solution, token by token."""

from collections.abc import Sequence

GRAM = 5
"""Tokens of an n-gram."""


def longest_common_span(left: Sequence[int], right: Sequence[int]) -> int:
    """The longest run of tokens that stands in both, in as many steps as there are pairs of equal tokens."""
    places: dict[int, list[int]] = {}
    for place, token in enumerate(right):
        places.setdefault(token, []).append(place)
    longest, before = 0, dict[int, int]()  # the length of the run that ends at each place of `right`
    for token in left:
        before = {place: before.get(place - 1, 0) + 1 for place in places.get(token, ())}
        longest = max(longest, *before.values()) if before else longest
    return longest


def shared_grams(response: Sequence[int], expert: Sequence[int]) -> float | None:
    """The share of the response's n-grams that stand in the expert's solution; None if it has none."""
    grams = _grams(response)
    known = set(_grams(expert))
    return sum(gram in known for gram in grams) / len(grams) if grams else None


def _grams(ids: Sequence[int]) -> list[tuple[int, ...]]:
    return list(zip(*(ids[start:] for start in range(GRAM)), strict=False))
