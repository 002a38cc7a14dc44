"""The gap's statistics equal plain formulas, per row and overall."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.errors import DataError
from offsft.gap import EDGES, GapSums, Scored, gap_by_source, gap_of_rewrites, gap_of_rows

ROWS = [
    ("a", "self", [-1.0, -0.5, -2.0], [-1.0, -0.5, -2.0]),
    ("b", "guided", [-3.0, -0.1], [-0.2, -0.3]),
    ("c", "expert", [-4.0, -0.7, -6.0, -0.01], None),
]


def ratios(row):
    _, _, logprobs, behavior = row
    return np.array(logprobs) - (0 if behavior is None else np.array(behavior))


def test_each_row():
    found = gap_of_rows(np.concatenate([ratios(row) for row in ROWS]), np.array([3, 2, 4]))
    for number, row in enumerate(ROWS):
        logs, weights = ratios(row), np.exp(ratios(row))
        assert found.mean_log_ratio[number] == pytest.approx(logs.mean())
        assert found.log_ratio[number] == pytest.approx(logs.sum())
        assert found.k3[number] == pytest.approx((weights - 1 - logs).mean())
        assert found.ess_share[number] == pytest.approx(weights.sum() ** 2 / (len(logs) * (weights**2).sum()))
        assert found.top_share[number] == pytest.approx(weights.max() / weights.sum())


def test_what_was_sampled_from_the_policy_itself_has_no_gap():
    found = gap_by_source([Scored(["a"], ["self"], [ROWS[0][2]], [ROWS[0][3]])])["self"]
    assert found["kl_k1"] == found["kl_k3"] == found["sequence_log_ratio"] == 0
    assert found["ess_share"] == pytest.approx(1)
    assert found["top_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_sum_of_all_rows_does_not_depend_on_the_pieces(pieces):
    columns = [list(column) for column in zip(*ROWS, strict=True)]
    whole = Scored(*columns)
    split = [Scored(*([value] for value in row)) for row in ROWS]
    found = gap_by_source([whole] if pieces == 1 else split)
    assert list(found) == ["all", "self", "guided", "expert"]
    logs = np.concatenate([ratios(row) for row in ROWS])
    weights, sequences = np.exp(logs), np.exp([ratios(row).sum() for row in ROWS])
    everything = found["all"]
    assert (everything["rows"], everything["tokens"]) == (3, 9)
    assert everything["mean_logprob"] == pytest.approx(np.mean(np.concatenate([row[2] for row in ROWS])))
    assert everything["kl_k1"] == pytest.approx(-logs.mean())
    assert everything["kl_k3"] == pytest.approx((weights - 1 - logs).mean())
    assert everything["sequence_log_ratio"] == pytest.approx(logs.sum() / 3)
    assert everything["ess_share"] == pytest.approx(weights.sum() ** 2 / (9 * (weights**2).sum()))
    assert everything["top_share"] == pytest.approx(weights.max() / weights.sum())
    assert everything["sequence_ess_share"] == pytest.approx(sequences.sum() ** 2 / (3 * (sequences**2).sum()))
    assert everything["sequence_top_share"] == pytest.approx(sequences.max() / sequences.sum())
    assert sum(everything["log_ratio_counts"]) == 9
    assert found["guided"]["mean_log_ratio"] == pytest.approx(ratios(ROWS[1]).mean())


def test_long_sequences_do_not_overflow():
    sums = GapSums()
    rows = gap_of_rows(np.array([900.0, -900.0, 0.0]), np.array([1, 1, 1]))
    assert rows.ess_share == pytest.approx([1, 1, 1])
    sums.add(np.full(4000, -1.0), np.full(4000, -1.0), np.array([2000, 2000]))
    found = sums.statistics()
    assert found["sequence_ess_share"] == pytest.approx(1)
    assert found["sequence_top_share"] == pytest.approx(0.5)


def test_what_lies_beyond_the_histogram_is_counted_at_its_ends():
    sums = GapSums()
    sums.add(np.zeros(3), np.array([-99.0, 99.0, EDGES[0]]), np.array([3]))
    counts = sums.statistics()["log_ratio_counts"]
    assert (counts[0], counts[-1], sum(counts)) == (2, 1, 3)


def test_a_folder_of_rewrites(tmp_path):
    for number, row in enumerate(ROWS):
        item = {
            "id": row[0],
            "source": row[1],
            "policy_logprobs": row[2],
            "behavior_logprobs": row[3],
            "expert_logprobs": [-1.5, -2.5],
        }
        schema = pa.schema(
            [("id", pa.string()), ("source", pa.string())]
            + [(name, pa.list_(pa.float32())) for name in ("policy_logprobs", "behavior_logprobs", "expert_logprobs")]
        )
        (tmp_path / "rewrites").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([item], schema=schema), tmp_path / "rewrites" / f"{number}.parquet")
    found = gap_of_rewrites(tmp_path / "rewrites", tmp_path / "gap")
    assert found["expert"]["all"]["mean_log_ratio"] == pytest.approx(-2.0)
    assert found["expert"]["all"]["rows"] == 3
    assert found["kept"]["self"]["kl_k3"] == pytest.approx(0)
    each = pq.read_table(tmp_path / "gap" / "kept.parquet").to_pylist()
    assert [row["id"] for row in each] == ["a", "b", "c"]
    assert each[1]["log_ratio"] == pytest.approx(-2.6, rel=1e-5)


def test_rows_whose_log_probs_are_not_known_are_left_out_and_no_sample_passes_for_a_demonstration():
    sources = ["self", "self", "guided", "expert"]
    logprobs = [[-1.0], None, [-1.0], [-2.0]]
    behavior = [[-1.5], [-1.0], None, None]
    found = gap_by_source([Scored(list("abcd"), sources, logprobs, behavior)])
    assert {name: each["rows"] for name, each in found.items()} == {"all": 2, "self": 1, "expert": 1}
    assert found["all"]["mean_log_ratio"] == pytest.approx((0.5 - 2.0) / 2)


def test_rows_of_an_engine_that_gives_no_log_probs_have_no_gap():
    assert gap_by_source([Scored(["a"], ["self"], [None], [None])])["all"]["rows"] == 0


@pytest.mark.parametrize("ratio", [400.0, 3000.0, -3000.0])
def test_extreme_log_ratios_give_finite_statistics(ratio):
    scored = Scored(["a", "b"], ["self", "guided"], [[-1.0, ratio], [-2.0]], [[-1.0, 0.0], [-2.0]])
    for statistics in gap_by_source([scored]).values():
        assert all(np.isfinite(value).all() for value in statistics.values()), statistics


@pytest.mark.parametrize("logprob", [np.nan, -np.inf])
def test_a_row_whose_log_ratio_is_not_finite_is_named(logprob):
    scored = Scored(["a", "broken"], ["self", "self"], [[-1.0], [-1.0, logprob]], [[-1.0], [-1.0, -1.0]])
    with pytest.raises(DataError, match="not finite numbers in 1 rows: broken; remove"):
        gap_by_source([scored])
