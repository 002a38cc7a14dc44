"""Variety: how many different n-grams the responses of a source have; text written with a solution in view has fewer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

GRAM = 4
"""Tokens of an n-gram."""
MOST_TOKENS = 50_000
"""Tokens of a source that are counted: the share falls with their number, and the n-grams are held in memory."""


@dataclass(slots=True)
class Variety:
    """Distinct n-grams of responses, added one at a time until MOST_TOKENS are counted."""

    tokens: int = 0
    grams: int = 0
    _seen: set[int] = field(default_factory=set)

    def add(self, ids: Sequence[int]) -> None:
        ids = ids[: max(0, MOST_TOKENS - self.tokens)]
        self.tokens += len(ids)
        for gram in zip(*(ids[start:] for start in range(GRAM)), strict=False):
            self.grams += 1
            self._seen.add(hash(gram))

    @property
    def share(self) -> float | None:
        """Distinct n-grams as a share of all; None without any. Compare sources with equally many tokens."""
        return len(self._seen) / self.grams if self.grams else None
