"""How far training has moved the policy: the KL divergence from the first model to another, on the first one's samples.

The first model answers some problems once, at temperature 1 on the plain prompt; every other model scores these answers.
The mean of log p_first - log p_other over their tokens is an unbiased estimate of KL(first || other). On the prompts of
the new task it predicts how much a model forgets (arXiv 2509.04259).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from offsft.evaluate.statistics import ScoreEstimate, estimate
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion
from offsft.storage.paths import StoragePath, parquet_files, read_table


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """A sample of the first model: token ids, and the log-probs (nats) of the response's tokens under some model."""

    prompt_ids: list[int]
    response_ids: list[int]
    logprobs: list[float]

    def as_row(self) -> dict[str, Any]:
        """The column `drift` of EVALUATION_SCHEMA."""
        return {"prompt_ids": self.prompt_ids, "response_ids": self.response_ids, "logprobs": self.logprobs}


async def sample_reference(
    sampler: Sampler, prompt_ids: list[int], params: SamplingParams, drawn: list[Completion]
) -> ScoredSample | None:
    """The first model's sample: one of those `drawn` by `params` if they are its own distribution, else a new one.

    None from an engine that gives no log-probs.
    """
    if not params.undistorted:
        drawn = await sampler.sample(prompt_ids, n=1, params=SamplingParams(params.max_tokens))
    first = drawn[0]
    return None if first.logprobs is None else ScoredSample(prompt_ids, first.token_ids, first.logprobs)


async def score_reference(
    sampler: Sampler, prompt_ids: list[int], reference: ScoredSample | None
) -> ScoredSample | None:
    """The first model's sample under this model; None if it reads the problem as other tokens, or cannot score."""
    if reference is None or reference.prompt_ids != prompt_ids or not reference.response_ids:
        return None
    logprobs = await sampler.score(prompt_ids, reference.response_ids)
    return None if logprobs is None else ScoredSample(prompt_ids, reference.response_ids, logprobs)


def read_samples(answers: StoragePath) -> dict[str, ScoredSample]:
    """The samples in a folder of EVALUATION_SCHEMA, by problem; empty where none were measured."""
    found: dict[str, ScoredSample] = {}
    for path in parquet_files(answers):
        table: pa.Table = read_table(path)
        if "drift" not in table.column_names:
            continue  # answers of an earlier version
        for row in table.select(["id", "drift"]).to_pylist():
            if row["drift"] is not None:
                found[row["id"]] = ScoredSample(**row["drift"])
    return found


def kl_divergence(first: Mapping[str, ScoredSample], other: Mapping[str, ScoredSample]) -> ScoreEstimate | None:
    """KL(first || other) in nats per token: the mean over the problems that both have, with its 95 % interval.

    None without such a problem. The estimate may be below 0 where the models hardly differ.
    """
    ratios = [
        float(np.mean(np.asarray(sample.logprobs) - np.asarray(other[key].logprobs)))
        for key, sample in sorted(first.items())
        if key in other and sample.response_ids and other[key].response_ids == sample.response_ids
    ]
    return estimate(ratios) if ratios else None
