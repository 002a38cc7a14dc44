"""Rewrites as training rows, and rows packed into one micro-batch."""

from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow.dataset
import torch

from offsft.batching import MicroBatch


@dataclass(frozen=True, slots=True)
class Row:
    """One rewrite as token ids; `prompt_ids` and `response_ids` as they were sampled, never tokenised again."""

    id: str
    source: str
    prompt_ids: list[int]
    response_ids: list[int]

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows packed into one sequence of T tokens, of which P come just before a response token.

    `input_ids_1T` and `position_ids_1T` (which restart at each row, so that attention does not cross) feed the model;
    the hidden states at `predicting_P` predict `targets_P`.
    """

    input_ids_1T: torch.Tensor
    position_ids_1T: torch.Tensor
    predicting_P: torch.Tensor
    targets_P: torch.Tensor

    def to(self, device: torch.device | str) -> "Packed":
        """The same tensors on a device."""
        return Packed(*(getattr(self, field.name).to(device) for field in fields(self)))


def load_rows(rewrites: Path, max_tokens: int) -> tuple[list[Row], int]:
    """All rewrites in the order of their ids, cut on the right to `max_tokens`; and how many were cut.

    A row whose prompt alone fills `max_tokens` has nothing left to learn from: it counts as cut and trains nothing.
    """
    columns = ["id", "source", "prompt_ids", "response_ids"]
    table = pyarrow.dataset.dataset(rewrites, format="parquet").to_table(columns=columns).sort_by("id")
    rows, cut = [], 0
    for item in table.to_pylist():
        prompt_ids, response_ids = item["prompt_ids"], item["response_ids"]
        if len(prompt_ids) + len(response_ids) > max_tokens:
            cut += 1
            prompt_ids = prompt_ids[:max_tokens]
            response_ids = response_ids[: max_tokens - len(prompt_ids)]
        rows.append(Row(item["id"], item["source"], prompt_ids, response_ids))
    return rows, cut


def pack(rows: list[Row], batch: MicroBatch) -> Packed:
    """The rows of a micro-batch, one after the other. An empty one is a single token that predicts nothing."""
    ids: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for row in (rows[index] for index in batch):
        first_response = len(ids) + len(row.prompt_ids)
        predicting += range(first_response - 1, first_response - 1 + len(row.response_ids))
        targets += row.response_ids
        ids += row.prompt_ids + row.response_ids
        positions += range(row.tokens)
    if not ids:
        ids, positions = [0], [0]
    return Packed(
        torch.tensor([ids]),
        torch.tensor([positions]),
        torch.tensor(predicting, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
    )
