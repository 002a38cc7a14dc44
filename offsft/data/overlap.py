"""Detect training problems that contain a benchmark's problem, by shared sequences of words (n-grams); pure.

Words are compared without case, punctuation and typesetting. Every sequence of `words` words in a benchmark's
problem counts (a shorter problem is one sequence); a training problem matches by the share of these that it contains.
Paraphrased problems are not found.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[^\W_]+")
_TYPESETTING = re.compile(r"\\(?:left|right|text|mathrm|displaystyle)(?![a-z])|\\[dt](?=frac)")
_KNOWN_WORDS = 1 << 20
"""Maximum number of cached word hashes, so that memory stays bounded."""
_BASE = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Match:
    """The benchmark's problem that overlaps most with a training problem; `share` is of the former's sequences."""

    problem: str
    share: float


class Overlap:
    """An index of a benchmark's problems for looking up training problems.

    `problems` are pairs of id and text, `words` the length of a sequence; a match of less than `share` does not count.
    """

    def __init__(self, problems: Iterable[tuple[str, str]], *, words: int, share: float) -> None:
        assert words >= 1, words
        assert 0 < share <= 1, share
        self._share = share
        self._known: dict[str, int] = {}
        self._ids: list[str] = []
        by_length: dict[int, list[tuple[np.ndarray, int]]] = {}
        counts: list[int] = []
        for name, text in problems:
            hashes = self._hashes(text)
            if not len(hashes):
                continue
            length = min(words, len(hashes))
            grams = np.unique(_sequences(hashes, length))
            by_length.setdefault(length, []).append((grams, len(self._ids)))
            self._ids.append(name)
            counts.append(len(grams))
        self._counts = np.array(counts)
        self._index = {length: _sort_ngrams(found) for length, found in by_length.items()}

    def match(self, texts: Sequence[str]) -> list[Match | None]:
        """The best match of each text, or None where none reaches the share."""
        hashes = [self._hashes(text) for text in texts]
        ends = np.cumsum([len(each) for each in hashes])
        joined = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        best: list[Match | None] = [None] * len(texts)
        shared: dict[tuple[int, int], int] = {}
        for length, (grams, owners) in self._index.items():
            for text, owner in self._hits(joined, ends, length, grams, owners):
                shared[text, owner] = shared.get((text, owner), 0) + 1
        for (text, owner), number in sorted(shared.items()):
            share = number / int(self._counts[owner])
            before = best[text]
            if share >= self._share and (before is None or share > before.share):
                best[text] = Match(self._ids[owner], share)
        return best

    def _hits(
        self, joined: np.ndarray, ends: np.ndarray, length: int, grams: np.ndarray, owners: np.ndarray
    ) -> Iterable[tuple[int, int]]:
        """(text, owner) of each distinct sequence that a text shares with a benchmark's problem."""
        if len(joined) < length:
            return
        found = _sequences(joined, length)
        text = np.searchsorted(ends, np.arange(len(found)), side="right")
        place = np.minimum(np.searchsorted(grams, found), len(grams) - 1)
        # Sequences that cross the end of a text do not count.
        inside = np.arange(len(found)) + length <= ends[np.minimum(text, len(ends) - 1)]
        hit = np.flatnonzero((grams[place] == found) & inside)
        for each, gram in sorted({(int(text[i]), int(found[i])) for i in hit}):
            first = int(np.searchsorted(grams, np.uint64(gram), side="left"))
            last = int(np.searchsorted(grams, np.uint64(gram), side="right"))
            yield from ((each, int(owner)) for owner in owners[first:last])

    def _hashes(self, text: str) -> np.ndarray:
        """A 64-bit hash of each word of a text."""
        known = self._known
        if len(known) > _KNOWN_WORDS:
            known.clear()
        found = _WORD.findall(_TYPESETTING.sub(" ", text).lower())
        for word in found:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest())
        return np.array([known[word] for word in found], dtype=np.uint64)


def _sequences(hashes: np.ndarray, length: int) -> np.ndarray:
    """A hash of each sequence of `length` words: `[words - length + 1]`."""
    total = np.zeros(len(hashes) - length + 1, dtype=np.uint64)
    for offset in range(length):
        factor = np.uint64(pow(_BASE, length - 1 - offset, 1 << 64))
        total += hashes[offset : offset + len(total)] * factor
    return total


def _sort_ngrams(found: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    grams = np.concatenate([each for each, _ in found])
    owners = np.concatenate([np.full(len(each), owner) for each, owner in found])
    order = np.argsort(grams, kind="stable")
    return grams[order], owners[order]
