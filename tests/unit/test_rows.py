"""Which rows are trained on, and what is known of each."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.config import Train
from offsft.errors import TrainingError
from offsft.train.rows import load_rows, pack

ITEMS = [
    ("a", "self", 4, 3),
    ("b", "guided", 5, 20),
    ("c", "expert", 3, 2),
    ("d", "guided", 30, 4),
]


@pytest.fixture
def rewrites(tmp_path):
    rows = [
        {
            "id": key,
            "source": source,
            "prompt_ids": list(range(prompt)),
            "response_ids": list(range(100, 100 + response)),
            "behavior_logprobs": None if source == "expert" else [-0.5] * response,
            "expert_ids": [7, 8, 9],
        }
        for key, source, prompt, response in ITEMS
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    return tmp_path


def settings(**changed):
    return Train.model_validate({"max_tokens": 20, "micro_batch_tokens": 64} | changed)


def test_long_rows_are_cut_on_the_right(rewrites):
    found = load_rows(rewrites, settings())
    assert (found.cut, found.dropped, found.left_out) == (2, 0, 0)
    assert [(row.id, len(row.prompt_ids), len(row.response_ids)) for row in found.rows] == [
        ("a", 4, 3),
        ("b", 5, 15),
        ("c", 3, 2),
        ("d", 20, 0),
    ]
    assert len(found.rows[1].behavior) == 15


def test_long_rows_are_dropped_or_refused_where_asked_for(rewrites):
    found = load_rows(rewrites, settings(long_rows="drop"))
    assert (found.cut, found.dropped, [row.id for row in found.rows]) == (0, 2, ["a", "c"])
    with pytest.raises(
        TrainingError, match=r"2 rows are longer than train.max_tokens=20: b \(25\), d \(34\); raise it"
    ):
        load_rows(rewrites, settings(long_rows="refuse"))


def test_sources_of_weight_0_are_left_out_and_others_weighted(rewrites):
    found = load_rows(rewrites, settings(source_weights={"guided": 0, "expert": 2.5}))
    assert found.left_out == 2
    assert [(row.id, row.weight, row.mass) for row in found.rows] == [("a", 1, 3), ("c", 2.5, 5)]
    with pytest.raises(TrainingError, match="no row is left to train on"):
        load_rows(rewrites, settings(source_weights={"self": 0, "guided": 0, "expert": 0}))


def test_expert_solutions_instead_of_rewrites(rewrites):
    found = load_rows(rewrites, settings(responses="expert", long_rows="drop"))
    assert [(row.id, row.source, row.response_ids, row.behavior) for row in found.rows] == [
        (key, "expert", [7, 8, 9], None) for key in "abc"
    ]


def test_what_a_pack_knows_of_its_tokens(rewrites):
    rows = load_rows(rewrites, settings(source_weights={"expert": 0.5})).rows
    tokens = pack(rows, [2, 0]).tokens
    assert tokens.row_T.tolist() == [0, 0, 1, 1, 1]
    assert tokens.weight_T.tolist() == [0.5, 0.5, 1, 1, 1]
    assert tokens.behavior_T.tolist() == [0, 0, -0.5, -0.5, -0.5]
    assert tokens.reference_T is None
