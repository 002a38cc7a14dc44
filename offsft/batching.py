"""Batches planned from lengths and a seed alone: the same plan on every rank, and step k without replaying k - 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MicroBatch = list[int]
"""Indices of rows that are packed together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows each optimizer step holds, and how a rank packs its share of them.

    The rows of a step depend on the seed and the global batch only, never on ranks or micro-batches.
    """

    lengths: Sequence[int]
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
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        return order[number * self.global_batch : (number + 1) * self.global_batch].tolist()

    def micro_batches(self, step: int, rank: int) -> list[MicroBatch]:
        """A rank's micro-batches in a step: as many on every rank, so some may be empty."""
        return self._divided(self.rows(step), rank)

    def everything(self, rank: int) -> list[MicroBatch]:
        """A rank's micro-batches of a pass over all rows, outside of any step."""
        return self._divided(range(len(self.lengths)), rank)

    def _divided(self, rows: Sequence[int], rank: int) -> list[MicroBatch]:
        packed = [self._pack(share) for share in self._shares(rows)]
        most = max(len(batches) for batches in packed)
        return packed[rank] + [[] for _ in range(most - len(packed[rank]))]

    def _longest_first(self, rows: Sequence[int]) -> list[int]:
        return sorted(rows, key=lambda row: (-self.lengths[row], row))

    def _shares(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows dealt to ranks so that each has about as many tokens: longest first, to the rank with the fewest."""
        shares: list[list[int]] = [[] for _ in range(self.ranks)]
        tokens = [0] * self.ranks
        for row in self._longest_first(rows):
            rank = min(range(self.ranks), key=lambda r: (tokens[r], r))
            shares[rank].append(row)
            tokens[rank] += self.lengths[row]
        return shares

    def _pack(self, rows: Sequence[int]) -> list[MicroBatch]:
        """First fit of the rows, longest first, into micro-batches of at most `micro_batch_tokens`."""
        batches: list[MicroBatch] = []
        room: list[int] = []
        for row in self._longest_first(rows):
            fits = next((i for i, free in enumerate(room) if free >= self.lengths[row]), None)
            if fits is None:
                batches.append([])
                room.append(self.micro_batch_tokens)
                fits = len(batches) - 1
            batches[fits].append(row)
            room[fits] -= self.lengths[row]
        return batches
