"""Rewrites as training rows, and rows packed into one micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from offsft.batching import MicroBatch
from offsft.config import Train
from offsft.errors import TrainingError
from offsft.objectives import Tokens
from offsft.records import Source
from offsft.storage import StoragePath, dataset

_ROWS_NAMED = 5
"""Rows that an error names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One response to learn as token ids, as they were sampled, never tokenised again. Log-probs in nats.

    `behavior` and `reference` have one entry for each response token, or are None where they are not known.
    """

    id: str
    source: str
    prompt_ids: list[int]
    response_ids: list[int]
    behavior: list[float] | None = None
    reference: list[float] | None = None
    weight: float = 1.0
    """Factor on the losses of the row's tokens, by its source."""

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)

    @property
    def mass(self) -> float:
        """What the row counts in the number that the global batch's loss is divided by."""
        return self.weight * len(self.response_ids)


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows packed into one sequence of T tokens, of which P come just before a response token.

    `input_ids_1T` and `position_ids_1T` (which restart at each row, so that attention does not cross) feed the model;
    the hidden states at `predicting_P` predict `targets_P`, and `tokens` (P) is what the objective knows of them.
    """

    input_ids_1T: torch.Tensor
    position_ids_1T: torch.Tensor
    predicting_P: torch.Tensor
    targets_P: torch.Tensor
    tokens: Tokens

    def to(self, device: torch.device | str) -> "Packed":
        """The same tensors on a device."""
        return Packed(
            self.input_ids_1T.to(device),
            self.position_ids_1T.to(device),
            self.predicting_P.to(device),
            self.targets_P.to(device),
            self.tokens.to(device),
        )

    def knowing(self, batch_loss: float | None) -> "Packed":
        """The same with the median loss of the global batch, which is known only once all ranks have scored theirs."""
        return replace(self, tokens=replace(self.tokens, batch_loss=batch_loss))


@dataclass(frozen=True, slots=True)
class Rows:
    """What training reads from a run's rewrites."""

    rows: list[Row]
    cut: int
    """Rows that were longer than `train.max_tokens` and cut on the right."""
    dropped: int
    """Rows that were longer and left out."""
    left_out: int
    """Rows of sources whose weight is 0."""


def load_rows(rewrites: StoragePath, settings: Train) -> Rows:
    """All rewrites, or all expert solutions, in the order of their ids, with long ones as `train.long_rows` says.

    A row whose prompt alone fills `train.max_tokens` has nothing left to learn from: cut, it trains nothing.

    Raises:
        TrainingError: a row is too long and long rows are refused, or no row is left.
    """
    expert = settings.responses == "expert"
    response, behavior = ("expert_ids", None) if expert else ("response_ids", "behavior_logprobs")
    columns = ["id", "source", "prompt_ids", response, *([behavior] if behavior else [])]
    table = dataset(rewrites).to_table(columns=columns).sort_by("id")
    rows, long, left_out = [], [], 0
    for item in table.to_pylist():
        source = str(Source.EXPERT) if expert else item["source"]
        weight = getattr(settings.source_weights, source)
        if weight == 0:
            left_out += 1
            continue
        row = Row(item["id"], source, item["prompt_ids"], item[response], item.get(behavior), weight=weight)
        if row.tokens > settings.max_tokens:
            long.append(row)
            if settings.long_rows == "drop":
                continue
            row = _cut(row, settings.max_tokens)
        rows.append(row)
    if long and settings.long_rows == "refuse":
        named = ", ".join(f"{row.id} ({row.tokens})" for row in long[:_ROWS_NAMED])
        raise TrainingError(
            f"{len(long)} rows are longer than train.max_tokens={settings.max_tokens}: {named}; raise it, or set"
            " train.long_rows to cut or drop"
        )
    if not rows:
        raise TrainingError(
            f"no row is left to train on: {len(long)} are longer than train.max_tokens={settings.max_tokens}, and"
            f" {left_out} are of sources whose train.source_weights is 0; change one of these settings"
        )
    dropped = settings.long_rows == "drop"
    return Rows(rows, cut=0 if dropped else len(long), dropped=len(long) if dropped else 0, left_out=left_out)


def _cut(row: Row, max_tokens: int) -> Row:
    prompt_ids = row.prompt_ids[:max_tokens]
    room = max_tokens - len(prompt_ids)
    behavior = None if row.behavior is None else row.behavior[:room]
    return replace(row, prompt_ids=prompt_ids, response_ids=row.response_ids[:room], behavior=behavior)


def pack(rows: Sequence[Row], batch: MicroBatch) -> Packed:
    """The rows of a micro-batch, one after the other. An empty one is a single token that predicts nothing."""
    ids: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    numbers: list[int] = []
    weights: list[float] = []
    behavior: list[float] = []
    reference: list[float] = []
    chosen = [rows[index] for index in batch]
    for number, row in enumerate(chosen):
        length = len(row.response_ids)
        first_response = len(ids) + len(row.prompt_ids)
        predicting += range(first_response - 1, first_response - 1 + length)
        targets += row.response_ids
        ids += row.prompt_ids + row.response_ids
        positions += range(row.tokens)
        numbers += [number] * length
        weights += [row.weight] * length
        behavior += row.behavior or [0.0] * length
        reference += row.reference or []
    if not ids:
        ids, positions = [0], [0]
    has_reference = all(row.reference is not None for row in chosen)
    return Packed(
        torch.tensor([ids]),
        torch.tensor([positions]),
        torch.tensor(predicting, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
        Tokens(
            weight_T=torch.tensor(weights, dtype=torch.float32),
            row_T=torch.tensor(numbers, dtype=torch.long),
            reference_T=torch.tensor(reference, dtype=torch.float32) if has_reference else None,
            behavior_T=torch.tensor(behavior, dtype=torch.float32),
        ),
    )
