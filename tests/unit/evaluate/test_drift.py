"""The KL divergence from the first model: estimated on its own samples, over the tokens that both read alike."""

import asyncio
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.data.tables import EVALUATION_SCHEMA
from offsft.evaluate.drift import ScoredSample, kl_divergence, read_samples, sample_reference, score_reference
from offsft.protocols import SamplingParams
from offsft.records import Completion

PROMPT = [1, 2]


class Engine:
    """An engine that samples one response and scores any token at -0.5."""

    def __init__(self):
        self.asked = []

    async def sample(self, prompt_ids, *, n, params):
        self.asked.append(params)
        return [Completion("own", [7, 8, 9], [-0.1, -0.2, -0.3], "stop")] * n

    async def score(self, prompt_ids, response_ids):
        return [-0.5] * len(response_ids)


def test_a_sample_of_the_models_own_distribution_is_used_again():
    engine, drawn = Engine(), Completion("drawn", [5], [-1.0], "stop")
    own = SamplingParams(16)
    assert asyncio.run(sample_reference(engine, PROMPT, own, [drawn])) == ScoredSample(PROMPT, [5], [-1.0])
    assert engine.asked == []


@pytest.mark.parametrize("params", [SamplingParams(16, 0.0), SamplingParams(16, 0.7), SamplingParams(16, 1.0, 0.9)])
def test_a_sample_of_any_other_distribution_is_drawn_anew_at_temperature_1(params):
    engine = Engine()
    sample = asyncio.run(sample_reference(engine, PROMPT, params, [Completion("greedy", [5], [0.0], "stop")]))
    assert sample == ScoredSample(PROMPT, [7, 8, 9], [-0.1, -0.2, -0.3])
    assert engine.asked == [SamplingParams(16)]


def test_a_model_that_reads_the_problem_as_other_tokens_is_not_compared():
    reference = ScoredSample(PROMPT, [7, 8], [-0.1, -0.1])
    assert asyncio.run(score_reference(Engine(), PROMPT, reference)) == ScoredSample(PROMPT, [7, 8], [-0.5, -0.5])
    assert asyncio.run(score_reference(Engine(), [3], reference)) is None
    assert asyncio.run(score_reference(Engine(), PROMPT, None)) is None


def test_the_divergence_is_the_mean_log_ratio_per_token_over_the_problems():
    first = {"a": ScoredSample(PROMPT, [7, 8], [-0.1, -0.3]), "b": ScoredSample(PROMPT, [9], [-0.2])}
    other = {"a": ScoredSample(PROMPT, [7, 8], [-0.5, -0.5]), "b": ScoredSample(PROMPT, [9], [-0.5])}
    found = kl_divergence(first, other)
    assert found.mean == pytest.approx((0.3 + 0.3) / 2)
    assert kl_divergence(first, {"a": other["a"]}).mean == pytest.approx(0.3)
    assert kl_divergence(first, {}) is None
    assert kl_divergence(first, first).mean == 0


def test_the_divergence_of_samples_approaches_the_exact_one():
    import numpy as np

    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.4, 0.4, 0.2])
    draw = np.random.default_rng(0)
    first, other = {}, {}
    for number in range(3000):
        ids = draw.choice(3, size=4, p=p)
        first[str(number)] = ScoredSample(PROMPT, ids.tolist(), np.log(p[ids]).tolist())
        other[str(number)] = ScoredSample(PROMPT, ids.tolist(), np.log(q[ids]).tolist())
    found, exact = kl_divergence(first, other), float((p * np.log(p / q)).sum())
    assert abs(found.mean - exact) < 4 * found.stderr
    assert math.isfinite(found.stderr)


def test_samples_are_read_from_the_answers_and_older_answers_have_none(tmp_path):
    row = {"id": "a", "suite": "held_out", "problem": "p", "answer": "1", "samples": [], "greedy": []}
    sample = ScoredSample(PROMPT, [7], [-0.5])
    rows = [row | {"drift": sample.as_row()}, row | {"id": "b", "drift": None}]
    pq.write_table(pa.Table.from_pylist(rows, schema=EVALUATION_SCHEMA), tmp_path / "new.parquet")
    assert read_samples(tmp_path) == {"a": sample}
    pq.write_table(
        pa.Table.from_pylist([row], schema=EVALUATION_SCHEMA).drop_columns("drift"), tmp_path / "new.parquet"
    )
    assert read_samples(tmp_path) == {}
