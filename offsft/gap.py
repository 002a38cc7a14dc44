"""The policy gap: how far responses are from what a policy would write, in log-ratios and importance weights.

The log-ratio of a token is log p - log q: p is its probability under the policy on the plain prompt, q under the
behaviour policy that wrote it. A demonstration has no known behaviour policy: q is 1, as if it had been certain of
every token. The weight is then p, as in DFT (arXiv 2508.05629), and the KL divergence from demonstration to policy is
exactly -log p.

R = rows, T = tokens of all rows, concatenated; log-probs in nats.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from offsft.errors import DataError
from offsft.records import EXPERT, UNSOLVED
from offsft.storage.paths import StoragePath, arrow, make, open_parquet, parquet_files

EDGES = np.linspace(-12.0, 4.0, 65)
"""Edges of the histogram of the tokens' log-ratios; values beyond are counted in the outermost bins."""

_BATCH_ROWS = 1024
_MOST_NATS = 600.0
"""The largest log-ratio whose exponential is taken, so that a sum of them is finite: float64 overflows at 709."""
_ROWS_NAMED = 5
"""Most rows named in an error."""
_ALL = "all"


@dataclass(slots=True)
class GapRows:
    """The gap statistics of each row, `(R)`."""

    tokens: np.ndarray
    mean_log_ratio: np.ndarray
    log_ratio: np.ndarray
    """Log-ratio of the whole sequence: the sum over its tokens."""
    k3: np.ndarray
    """Estimate of KL(q || p) per token: mean of w - 1 - log w. The estimate k1 is minus the mean log-ratio."""
    ess_share: np.ndarray
    """Effective sample size of the row's token weights, as a share of its tokens."""
    top_share: np.ndarray
    """Share of the largest token weight in the row's sum of weights."""


def gap_of_rows(log_ratios_T: np.ndarray, lengths_R: np.ndarray) -> GapRows:
    """Gap statistics of each row; NaN for a row without tokens."""
    log_ratios_T = np.asarray(log_ratios_T, dtype=np.float64)
    lengths_R = np.asarray(lengths_R, dtype=np.int64)
    row_T = np.repeat(np.arange(len(lengths_R)), lengths_R)

    def sum_by_row(values_T: np.ndarray) -> np.ndarray:
        return np.bincount(row_T, weights=values_T, minlength=len(lengths_R))

    top_R = np.full(len(lengths_R), -np.inf)
    np.maximum.at(top_R, row_T, log_ratios_T)
    # Weights relative to the row's largest, so that none overflows.
    weights_T = np.exp(log_ratios_T - top_R[row_T])
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        total_R = sum_by_row(weights_T)
        return GapRows(
            tokens=lengths_R,
            mean_log_ratio=sum_by_row(log_ratios_T) / lengths_R,
            log_ratio=sum_by_row(log_ratios_T),
            k3=sum_by_row(np.expm1(np.minimum(log_ratios_T, _MOST_NATS)) - log_ratios_T) / lengths_R,
            ess_share=total_R**2 / (sum_by_row(weights_T**2) * lengths_R),
            top_share=1 / total_R,
        )


@dataclass(slots=True)
class _Weights:
    """Sums of importance weights in log space, accumulated piece by piece."""

    n: int = 0
    log_sum: float = -math.inf
    log_sum_squared: float = -math.inf
    log_top: float = -math.inf

    def add(self, log_weights: np.ndarray) -> None:
        if len(log_weights):
            self.n += len(log_weights)
            self.log_sum = float(np.logaddexp(self.log_sum, np.logaddexp.reduce(log_weights)))
            self.log_sum_squared = float(np.logaddexp(self.log_sum_squared, np.logaddexp.reduce(2 * log_weights)))
            self.log_top = max(self.log_top, float(log_weights.max()))

    @property
    def ess_share(self) -> float | None:
        return math.exp(2 * self.log_sum - self.log_sum_squared) / self.n if self.n else None

    @property
    def top_share(self) -> float | None:
        return math.exp(self.log_top - self.log_sum) if self.n else None


@dataclass(slots=True)
class GapSums:
    """The gap of any number of rows, accumulated batch by batch."""

    rows: int = 0
    tokens: int = 0
    logprob: float = 0.0
    log_ratio: float = 0.0
    k3: float = 0.0
    token_weights: _Weights = field(default_factory=_Weights)
    sequence_weights: _Weights = field(default_factory=_Weights)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(EDGES) - 1, dtype=np.int64))

    def add(self, logprobs_T: np.ndarray, log_ratios_T: np.ndarray, lengths_R: np.ndarray) -> GapRows:
        """Add a batch of rows; returns the statistics of each row."""
        each = gap_of_rows(log_ratios_T, lengths_R)
        self.rows += len(lengths_R)
        self.tokens += len(log_ratios_T)
        self.logprob += float(np.sum(logprobs_T, dtype=np.float64))
        self.log_ratio += float(np.nansum(each.log_ratio))
        self.k3 += float(np.nansum(each.k3 * each.tokens))
        self.token_weights.add(np.asarray(log_ratios_T, dtype=np.float64))
        self.sequence_weights.add(each.log_ratio)
        inside = np.clip(log_ratios_T, EDGES[0], EDGES[-1])
        self.counts += np.histogram(inside, bins=EDGES)[0]
        return each

    def statistics(self) -> dict[str, Any]:
        """Means over all tokens, or over rows for names with `sequence`; shares are of 1."""
        tokens, rows = max(1, self.tokens), max(1, self.rows)
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "mean_logprob": self.logprob / tokens,
            "mean_log_ratio": self.log_ratio / tokens,
            "sequence_log_ratio": self.log_ratio / rows,
            "kl_k1": -self.log_ratio / tokens,
            "kl_k3": self.k3 / tokens,
            "ess_share": self.token_weights.ess_share,
            "top_share": self.token_weights.top_share,
            "sequence_ess_share": self.sequence_weights.ess_share,
            "sequence_top_share": self.sequence_weights.top_share,
            "log_ratio_counts": self.counts.tolist(),
        }


@dataclass(slots=True)
class Scored:
    """Log-probs of one set of responses under one policy, row by row; `behavior` has None for demonstrations.

    A row that was not scored has None in `logprobs`, a sample with unknown log-probs has None in `behavior`.
    """

    ids: list[str]
    sources: list[str]
    logprobs: Sequence[Sequence[float] | np.ndarray | None]
    behavior: Sequence[Sequence[float] | np.ndarray | None]

    def measured(self) -> "Scored":
        """The rows with both sides of the log-ratio known."""
        rows = [
            row
            for row in zip(self.ids, self.sources, self.logprobs, self.behavior, strict=True)
            if row[2] is not None and (row[3] is not None or row[1] == EXPERT)
        ]
        return Scored(*(list(column) for column in zip(*rows, strict=True))) if rows else Scored([], [], [], [])


def gap_by_source(
    batches: Iterable[Scored], sources: Sequence[str] = (), each_row: StoragePath | None = None
) -> dict[str, Any]:
    """Statistics of all rows, then of each source present: those of `sources` in this order, then others as they come.

    Rows with unknown log-probs are left out. With `each_row`, the statistics of each row are written there as Parquet.

    Raises:
        DataError: a log-ratio is not finite; names the rows.
    """
    sums: dict[str, GapSums] = {}
    writer = None
    for batch in (scored.measured() for scored in batches):
        ratios = [_log_ratios(p, q) for p, q in zip(batch.logprobs, batch.behavior, strict=True) if p is not None]
        _check_finite(batch.ids, ratios)
        for name in (_ALL, *dict.fromkeys(batch.sources)):
            chosen = [i for i, source in enumerate(batch.sources) if name in (_ALL, source)]
            rows = sums.setdefault(name, GapSums()).add(
                _flat([batch.logprobs[i] for i in chosen]),
                _flat([ratios[i] for i in chosen]),
                np.array([len(ratios[i]) for i in chosen], dtype=np.int64),
            )
            if name == _ALL and each_row is not None:
                table = _rows_table(batch, rows)
                if writer is None:
                    make(each_row.parent)
                    filesystem, inner = arrow(each_row)
                    writer = pyarrow.parquet.ParquetWriter(inner, table.schema, filesystem=filesystem)
                writer.write_table(table)
    if writer is not None:
        writer.close()
    order = dict.fromkeys([_ALL, *sources, *sums])
    return {name: sums[name].statistics() for name in order if name in sums}


def gap_of_rewrites(rewrites: StoragePath, folder: StoragePath, sources: Sequence[str] = ()) -> dict[str, Any]:
    """The gap before training: of expert solutions and of kept responses, under the policy that rewrote.

    Each row's statistics go to `expert.parquet` and `kept.parquet` in `folder`.
    """
    return {
        which: gap_by_source(read_scored(rewrites, which), sources, folder / f"{which}.parquet")
        for which in ("expert", "kept")
    }


def read_scored(rewrites: StoragePath, which: str) -> Iterable[Scored]:
    """Log-probs recorded by rewriting, of the kept responses or of all problems' expert solutions, in batches.

    Rows without a response have nothing to measure and are left out of the kept ones.
    """
    columns = ["id", "source", "policy_logprobs", "behavior_logprobs"] if which == "kept" else ["id", "expert_logprobs"]
    for path in parquet_files(rewrites):
        for batch in open_parquet(path).iter_batches(_BATCH_ROWS, columns=columns):
            if which == "kept":
                batch = batch.filter(pc.field("source") != UNSOLVED)
            ids = batch["id"].to_pylist()
            if which == "kept":
                sources = batch["source"].to_pylist()
                yield Scored(ids, sources, _arrays(batch["policy_logprobs"]), _arrays(batch["behavior_logprobs"]))
            else:
                n = len(ids)
                yield Scored(ids, [EXPERT] * n, _arrays(batch["expert_logprobs"]), [None] * n)


def _arrays(lists: pa.Array) -> list[Any]:
    """An array per list, None for a null: converting each log-prob to a Python number would take most of the time."""
    return list(lists.to_numpy(zero_copy_only=False))


def _log_ratios(logprobs: Sequence[float] | np.ndarray, behavior: Sequence[float] | np.ndarray | None) -> np.ndarray:
    ratios = np.asarray(logprobs, dtype=np.float64)
    return ratios if behavior is None else ratios - np.asarray(behavior, dtype=np.float64)


def _check_finite(ids: list[str], ratios: list[np.ndarray]) -> None:
    broken = [name for name, ratios_T in zip(ids, ratios, strict=True) if not np.isfinite(ratios_T).all()]
    if broken:
        raise DataError(
            f"log-probs that are not finite numbers in {len(broken)} rows: {', '.join(broken[:_ROWS_NAMED])}; remove these"
            " rows, or rewrite their problems again"
        )


def _flat(lists: list[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.float64) for part in lists]) if lists else np.zeros(0)


def _rows_table(batch: Scored, rows: GapRows) -> pa.Table:
    return pa.table(
        {
            "id": batch.ids,
            "source": batch.sources,
            "tokens": rows.tokens,
            "mean_log_ratio": rows.mean_log_ratio,
            "log_ratio": rows.log_ratio,
            "kl_k1": -rows.mean_log_ratio,
            "kl_k3": rows.k3,
            "ess_share": rows.ess_share,
            "top_share": rows.top_share,
        }
    )
