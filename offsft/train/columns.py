"""Training rows as columns: token ids in blocks of memory, log-probs in a file, everything else in small arrays.

A Python list costs 8 bytes per number and 32 more for the number itself. Here a token id costs 4 bytes of memory, and a
log-prob none: the few that a step needs are read when it packs them.
"""

import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from offsft.train.rows import Numbers, Row

_BLOCK_TOKENS = 2**22
"""Token ids per block, 16 MiB. Blocks are added as rows arrive, so that nothing is ever copied to grow."""
_FLOAT_BYTES = 4


def order_of(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The indices that sort the ids; equal ids keep their order."""
    return (
        pa.table({"id": ids, "place": np.arange(len(ids))})
        .sort_by([("id", "ascending"), ("place", "ascending")])["place"]
        .to_numpy()
    )


class TokenBlocks:
    """Token ids (int32) of many rows. A row lies within one block."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._used = 0

    def append(self, first: Numbers, second: Numbers) -> tuple[int, int]:
        """Store two lists one after the other; returns their block and their start in it."""
        needed = len(first) + len(second)
        if not self._blocks or self._used + needed > len(self._blocks[-1]):
            self._blocks.append(np.empty(max(_BLOCK_TOKENS, needed), dtype=np.int32))
            self._used = 0
        start, middle, end = self._used, self._used + len(first), self._used + needed
        self._blocks[-1][start:middle] = first
        self._blocks[-1][middle:end] = second
        self._used = end
        return len(self._blocks) - 1, start

    def part(self, block: int, start: int, length: int) -> np.ndarray:
        """A view of the ids stored there."""
        return self._blocks[block][start : start + length]


class FloatFile:
    """float32 numbers in an unnamed file in this machine's temporary folder, deleted when the process ends."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the rows exist
        self._written = 0

    def append(self, values: Numbers) -> int:
        """Store numbers; returns their start."""
        place = self._written
        self._file.write(np.asarray(values, dtype=np.float32).tobytes())
        self._written += len(values)
        return place

    def done(self) -> None:
        """Flush the file: nothing more is appended, and everything is readable from here on."""
        self._file.flush()

    def part(self, start: int, length: int) -> np.ndarray:
        """The numbers stored there, read from the file each time."""
        content = os.pread(self._file.fileno(), _FLOAT_BYTES * length, _FLOAT_BYTES * start)
        return np.frombuffer(content, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class FloatColumn:
    """Log-probs of the response tokens of each row. R = rows."""

    file: FloatFile
    starts_R: np.ndarray
    """Start in the file; -1 where the row has no log-probs."""

    def of(self, row: int, length: int) -> np.ndarray | None:
        start = int(self.starts_R[row])
        return None if start < 0 else self.file.part(start, length)


@dataclass(frozen=True, slots=True)
class ColumnRows(Sequence[Row]):
    """Rows in the order of their ids, each built on access. R = rows; arrays are (R)."""

    ids_R: pa.Array
    sources: list[str]
    source_R: np.ndarray
    """Index into `sources`."""
    weights: list[float]
    """Weight of each of `sources`."""
    tokens: TokenBlocks
    block_R: np.ndarray
    start_R: np.ndarray
    prompt_R: np.ndarray
    """Tokens of the prompt."""
    response_R: np.ndarray
    """Tokens of the response."""
    behavior: FloatColumn | None = None
    reference: FloatColumn | None = None

    def __len__(self) -> int:
        return len(self.ids_R)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]  # slices are not needed
        prompt, response = int(self.prompt_R[index]), int(self.response_R[index])
        ids = self.tokens.part(int(self.block_R[index]), int(self.start_R[index]), prompt + response)
        source = self.source_R[index]
        return Row(
            self.ids_R[index].as_py(),
            self.sources[source],
            ids[:prompt],
            ids[prompt:],
            behavior=self.behavior.of(index, response) if self.behavior else None,
            reference=self.reference.of(index, response) if self.reference else None,
            weight=self.weights[source],
        )

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths_R(self) -> np.ndarray:
        """Tokens of prompt and response together."""
        return self.prompt_R + self.response_R


class ColumnBuilder:
    """Collects rows in reading order, and returns them in the order of their ids."""

    def __init__(self, *, behavior: bool) -> None:
        self._ids: list[pa.Array] = []
        self._waiting: list[str] = []
        self._weights: dict[str, float] = {}
        self._source, self._block = array("h"), array("i")
        self._start, self._prompt, self._response = array("q"), array("i"), array("i")
        self._tokens = TokenBlocks()
        self._behavior = FloatFile() if behavior else None
        self._behavior_start = array("q")

    def add(self, row: Row) -> None:
        self._waiting.append(row.id)
        self._weights.setdefault(row.source, row.weight)
        self._source.append(list(self._weights).index(row.source))
        block, start = self._tokens.append(row.prompt_ids, row.response_ids)
        self._block.append(block)
        self._start.append(start)
        self._prompt.append(len(row.prompt_ids))
        self._response.append(len(row.response_ids))
        if self._behavior:
            self._behavior_start.append(-1 if row.behavior is None else self._behavior.append(row.behavior))

    def close_batch(self) -> None:
        """Turn the batch's ids into an Arrow array: as Python strings they are large."""
        self._ids.append(pa.array(self._waiting, pa.string()))
        self._waiting = []

    def build(self) -> ColumnRows:
        """All rows that were added."""
        ids = pa.chunked_array(self._ids, pa.string()).combine_chunks()
        order = order_of(ids)
        behavior = None
        if self._behavior:
            self._behavior.done()
            behavior = FloatColumn(self._behavior, np.asarray(self._behavior_start)[order])
        return ColumnRows(
            ids.take(pa.array(order)),
            list(self._weights),
            np.asarray(self._source)[order],
            list(self._weights.values()),
            self._tokens,
            np.asarray(self._block)[order],
            np.asarray(self._start)[order],
            np.asarray(self._prompt)[order],
            np.asarray(self._response)[order],
            behavior,
        )
