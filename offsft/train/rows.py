"""Training rows, and their packing into micro-batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from offsft.losses.objectives import Tokens
from offsft.train.attention import RowLengths
from offsft.train.batching import MicroBatch

Numbers = Sequence[int] | Sequence[float] | np.ndarray
"""Token ids or log-probs of one row: a list, or a view into a column."""


@dataclass(frozen=True, slots=True)
class Row:
    """One response to train on, as token ids as they were sampled, never tokenised again. Log-probs in nats.

    `behavior` and `reference` have one entry per response token, or are None where unknown or not needed.
    """

    id: str
    source: str
    prompt_ids: Numbers
    response_ids: Numbers
    behavior: Numbers | None = None
    reference: Numbers | None = None
    weight: float = 1.0
    """Factor on the losses of the row's tokens, set by its source."""

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)

    @property
    def loss_normalizer(self) -> float:
        """The row's part of the number that the global batch's loss is divided by."""
        return self.weight * len(self.response_ids)

    def cut(self, max_tokens: int) -> "Row":
        """The row cut on the right to `max_tokens`; a long prompt leaves no response."""
        prompt_ids = self.prompt_ids[:max_tokens]
        room = max_tokens - len(prompt_ids)
        behavior = None if self.behavior is None else self.behavior[:room]
        return replace(self, prompt_ids=prompt_ids, response_ids=self.response_ids[:room], behavior=behavior)


class RowSource(Protocol):
    """Rows by index, however they are stored: a list, or columns read once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...

    def __iter__(self) -> Iterator[Row]: ...


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows packed into one sequence of T tokens, of which P come just before a response token.

    `input_ids_1T`, `position_ids_1T` and the rows' `lengths` are the model's input; positions restart at each row, and
    attention does not cross rows. The hidden states at `predicting_P` predict `targets_P`; `tokens` (P) is the objective's input.
    """

    input_ids_1T: torch.Tensor
    position_ids_1T: torch.Tensor
    lengths: RowLengths
    predicting_P: torch.Tensor
    targets_P: torch.Tensor
    tokens: Tokens

    def to(self, device: torch.device | str) -> "Packed":
        """The same tensors on a device."""
        return Packed(
            self.input_ids_1T.to(device),
            self.position_ids_1T.to(device),
            self.lengths.to(device),
            self.predicting_P.to(device),
            self.targets_P.to(device),
            self.tokens.to(device),
        )

    def knowing(self, batch_loss: float | None, progress: float) -> "Packed":
        """A copy with values that only the step knows: the global batch's median loss, and the share of steps done."""
        return replace(self, tokens=replace(self.tokens, batch_loss=batch_loss, progress=progress))


def pack(rows: RowSource, batch: MicroBatch) -> Packed:
    """Pack the rows of a micro-batch, one after the other. An empty one is a single token that predicts nothing."""
    chosen = [rows[index] for index in batch]
    lengths = [row.tokens for row in chosen]
    responses = [len(row.response_ids) for row in chosen]
    ends = np.cumsum(lengths, dtype=np.int64)
    ids = _joined([part for row in chosen for part in (row.prompt_ids, row.response_ids)], np.int64)
    positions = _joined([np.arange(length) for length in lengths], np.int64)
    # Each response token is predicted by the hidden state one position before it.
    predicting = _joined([np.arange(end - n, end) - 1 for end, n in zip(ends, responses, strict=True)], np.int64)
    reference = [row.reference for row in chosen if row.reference is not None]
    behavior = [np.zeros(n) if row.behavior is None else row.behavior for row, n in zip(chosen, responses, strict=True)]
    return Packed(
        torch.from_numpy(ids if len(ids) else np.zeros(1, np.int64))[None],
        torch.from_numpy(positions if len(ids) else np.zeros(1, np.int64))[None],
        RowLengths.of(lengths if len(ids) else [1]),
        torch.from_numpy(predicting),
        torch.from_numpy(_joined([row.response_ids for row in chosen], np.int64)),
        Tokens(
            weight_T=torch.from_numpy(np.repeat(np.array([row.weight for row in chosen], np.float32), responses)),
            row_T=torch.from_numpy(np.repeat(np.arange(len(chosen)), responses)),
            reference_T=torch.from_numpy(_joined(reference, np.float32)) if len(reference) == len(chosen) else None,
            behavior_T=torch.from_numpy(_joined(behavior, np.float32)),
        ),
    )


def _joined(parts: Sequence[Numbers], dtype: type) -> np.ndarray:
    """A copy of the parts, concatenated."""
    return np.concatenate([np.asarray(part, dtype=dtype) for part in parts]) if parts else np.zeros(0, dtype)
