"""Batches planned from lengths and a seed alone: the same on every rank, and step k without replaying k - 1."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MicroBatch = list[int]
"""Indices of rows that are packed together."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The plan of which rows each optimizer step holds, and how a rank packs its share of them.

    The rows of a step depend on the seed and the global batch only, never on ranks or micro-batches.
    """

    lengths: Sequence[int] | np.ndarray
    """Tokens per row."""
    global_batch: int
    micro_batch_tokens: int
    ranks: int
    seed: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.global_batch)

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def rows(self, step: int) -> list[int]:
        """Indices of all rows of a step (from 0), over all ranks."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = _order(self.seed, epoch, len(self.lengths))
        return order[number * self.global_batch : (number + 1) * self.global_batch].tolist()

    def micro_batches(self, step: int, rank: int) -> list[MicroBatch]:
        """A rank's micro-batches in a step: the same number on every rank, so some may be empty."""
        packed = [self._pack(share) for share in self._shares(self.rows(step))]
        most = max(len(batches) for batches in packed)
        return packed[rank] + [[] for _ in range(most - len(packed[rank]))]

    def share(self, rank: int) -> list[MicroBatch]:
        """A rank's micro-batches of a pass over all rows, outside of any step.

        Their number differs between ranks: each packs only its own rows, since there can be a million in all.
        """
        return self._pack(self._shares(range(len(self.lengths)))[rank])

    def _longest_first(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Rows by decreasing length, those of equal length by their number; and their lengths."""
        numbers = np.asarray(rows, dtype=np.int64)
        lengths = np.asarray(self.lengths)[numbers]
        order = np.lexsort((numbers, -lengths))
        return numbers[order].tolist(), lengths[order].tolist()

    def _shares(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows dealt to ranks so that each has about as many tokens: longest first, to the rank with the fewest."""
        shares: list[list[int]] = [[] for _ in range(self.ranks)]
        fewest = [(0, rank) for rank in range(self.ranks)]
        for row, length in zip(*self._longest_first(rows), strict=True):
            tokens, rank = fewest[0]
            shares[rank].append(row)
            heapq.heapreplace(fewest, (tokens + length, rank))
        return shares

    def _pack(self, rows: Sequence[int]) -> list[MicroBatch]:
        """First fit of the rows, longest first, into micro-batches of at most `micro_batch_tokens`."""
        batches: list[MicroBatch] = []
        bins = _FirstFit(len(rows), self.micro_batch_tokens)
        for row, length in zip(*self._longest_first(rows), strict=True):
            place = bins.put(length)
            if place == len(batches):
                batches.append([])
            batches[place].append(row)
        return batches


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of an epoch's rows; cached, since each step asks for it several times."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


class _FirstFit:
    """Finds the first bin with room in log n steps, by a tree over the bins with the most room below each node."""

    def __init__(self, bins: int, room: int) -> None:
        self._room = room
        self._leaves = 1 << max(0, bins - 1).bit_length()
        self._most = [room] * (2 * self._leaves)

    def put(self, length: int) -> int:
        """Take room for `length` in the first bin that has it; returns its number. Overlong rows get their own bin."""
        length, node, most = min(length, self._room), 1, self._most
        while node < self._leaves:
            node *= 2
            if most[node] < length:
                node += 1
        place = node - self._leaves
        most[node] -= length
        while node > 1:
            node //= 2
            most[node] = max(most[2 * node], most[2 * node + 1])
        return place
