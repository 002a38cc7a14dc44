"""The rows for training, and their columns."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from offsft.config import TrainConfig
from offsft.errors import TrainingError
from offsft.train import columns, loading
from offsft.train.batching import BatchPlan
from offsft.train.loading import load_rows
from offsft.train.reference import add_reference
from offsft.train.rows import Row, pack

ROOT = Path(__file__).parents[3]

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
    base = {"max_tokens": 20, "micro_batch_tokens": 64, "long_rows": "cut", "objective": {"kind": "is"}}
    return TrainConfig.model_validate(base | changed)


def counts(found):
    return found.counts.cut, found.counts.dropped, found.counts.left_out


def test_long_rows_are_cut_on_the_right(rewrites):
    found = load_rows(rewrites, settings())
    assert counts(found) == (2, 0, 0)
    assert [(row.id, len(row.prompt_ids), len(row.response_ids)) for row in found.rows] == [
        ("a", 4, 3),
        ("b", 5, 15),
        ("c", 3, 2),
        ("d", 20, 0),
    ]
    assert len(found.rows[1].behavior) == 15


def test_problems_are_held_out_by_their_ids_whatever_became_of_them(rewrites):
    every = {row.id for row in load_rows(rewrites, settings()).rows}
    assert len(load_rows(rewrites, settings()).held_out) == 0
    for most in (2, 3):  # the first by its hash, d, has no response left
        found = load_rows(rewrites, settings(held_out_rows=most))
        held_out = {row.id for row in found.held_out}
        assert (len(held_out), found.counts.held_out) == (most, most)
        assert {row.id for row in found.rows} == every - held_out
        of_the_expert = load_rows(rewrites, settings(held_out_rows=most, responses="expert")).held_out
        assert {row.id for row in of_the_expert} == held_out
        fewer = load_rows(rewrites, settings(held_out_rows=most, long_rows="drop"))
        assert {row.id for row in fewer.held_out} == held_out & {"a", "c"}
        assert {row.id for row in fewer.rows} == {"a", "c"} - held_out


def test_holding_out_everything_or_nothing_that_can_be_measured_is_refused(rewrites):
    with pytest.raises(TrainingError, match=r"and 4 are held out by train.held_out_rows; change one of these"):
        load_rows(rewrites, settings(held_out_rows=100))
    with pytest.raises(
        TrainingError, match=r"none of the 1 problems that train.held_out_rows=1 holds out has a response"
    ):
        load_rows(rewrites, settings(held_out_rows=1))


def test_long_rows_are_dropped_or_refused_where_asked_for(rewrites):
    found = load_rows(rewrites, settings(long_rows="drop"))
    assert counts(found) == (0, 2, 0)
    assert [row.id for row in found.rows] == ["a", "c"]
    with pytest.raises(
        TrainingError, match=r"2 rows are longer than train.max_tokens=20: b \(25\), d \(34\); raise it"
    ):
        load_rows(rewrites, settings(long_rows="refuse"))


def test_sources_of_weight_0_are_left_out_and_others_weighted(rewrites):
    found = load_rows(rewrites, settings(source_weights={"guided": 0, "expert": 2.5}))
    assert counts(found)[2] == 2
    assert [(row.id, row.weight, row.loss_normalizer) for row in found.rows] == [("a", 1, 3), ("c", 2.5, 5)]
    with pytest.raises(TrainingError, match="no row is left to train on"):
        load_rows(rewrites, settings(source_weights={"self": 0, "guided": 0, "expert": 0}))


def test_expert_solutions_instead_of_rewrites(rewrites):
    found = load_rows(rewrites, settings(responses="expert", long_rows="drop"))
    assert [(row.id, row.source, row.response_ids.tolist(), row.behavior) for row in found.rows] == [
        (key, "expert", [7, 8, 9], None) for key in "abc"
    ]


def test_what_a_pack_knows_of_its_tokens(rewrites):
    rows = load_rows(rewrites, settings(source_weights={"expert": 0.5})).rows
    tokens = pack(rows, [2, 0]).tokens
    assert tokens.row_T.tolist() == [0, 0, 1, 1, 1]
    assert tokens.weight_T.tolist() == [0.5, 0.5, 1, 1, 1]
    assert tokens.behavior_T.tolist() == [0, 0, -0.5, -0.5, -0.5]
    assert tokens.reference_T is None


def write(folder, items, name="a"):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(items), folder / f"{name}.parquet")


def random_items(count):
    draw = random.Random(count)
    lengths = [(draw.randint(1, 9), draw.randint(0, 9)) for _ in range(count)]
    return [
        {
            "id": f"{draw.getrandbits(32):08x}",
            "source": draw.choice(["self", "guided", "expert"]),
            "prompt_ids": [draw.randrange(1000) for _ in range(prompt)],
            "response_ids": [draw.randrange(1000) for _ in range(response)],
            "behavior_logprobs": draw.choice([None, [draw.uniform(-9, 0) for _ in range(response)]]),
            "expert_ids": [draw.randrange(1000) for _ in range(response)],
        }
        for prompt, response in lengths
    ]


def plain(row):
    behavior = None if row.behavior is None else pytest.approx(list(row.behavior), rel=1e-6)
    return row.id, row.source, list(row.prompt_ids), list(row.response_ids), behavior


def test_columns_hold_the_rows_of_all_files_in_the_order_of_their_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_BLOCK_TOKENS", 16)
    monkeypatch.setattr(loading, "_BATCH_ROWS", 7)
    items = random_items(60)
    write(tmp_path, items[:25], "b")
    write(tmp_path, items[25:], "a")
    found = load_rows(tmp_path, settings())
    want = [
        (i["id"], i["source"], i["prompt_ids"], i["response_ids"], i["behavior_logprobs"])
        for i in sorted(items, key=lambda item: item["id"])
    ]
    assert [plain(row) for row in found.rows] == want
    assert found.rows.lengths_R.tolist() == [row.tokens for row in found.rows]
    assert counts(found) == (0, 0, 0)


def test_packing_columns_gives_the_tensors_of_packing_lists(tmp_path):
    items = random_items(20)
    write(tmp_path, items)
    rows = load_rows(tmp_path, settings()).rows
    lists = [Row(*plain(row)[:4], behavior=None if row.behavior is None else row.behavior.tolist()) for row in rows]
    for batch in ([3, 1, 19], [], [0]):
        got, want = pack(rows, batch), pack(lists, batch)
        for name in ("input_ids_1T", "position_ids_1T", "predicting_P", "targets_P"):
            assert getattr(got, name).tolist() == getattr(want, name).tolist()
            assert getattr(got, name).dtype is torch.long
        assert got.tokens.behavior_T.tolist() == want.tokens.behavior_T.tolist()
    first, second = lists[3], lists[1]
    packed = pack(lists, [3, 1])
    assert packed.input_ids_1T.tolist() == [
        [*first.prompt_ids, *first.response_ids, *second.prompt_ids, *second.response_ids]
    ]
    assert packed.position_ids_1T.tolist() == [[*range(first.tokens), *range(second.tokens)]]
    predicted = packed.input_ids_1T[0][packed.predicting_P + 1]
    assert predicted.tolist() == packed.targets_P.tolist() == [*first.response_ids, *second.response_ids]


def test_log_probs_are_read_only_where_the_objective_needs_them(tmp_path):
    items = [{k: v for k, v in item.items() if k != "behavior_logprobs"} for item in random_items(5)]
    write(tmp_path, items)
    assert all(row.behavior is None for row in load_rows(tmp_path, settings(objective={"kind": "dft"})).rows)
    with pytest.raises(TrainingError, match=r"a\.parquet has no column behavior_logprobs"):
        load_rows(tmp_path, settings())


@pytest.mark.parametrize(
    ("logprobs", "found"),
    [
        ([-1.0, math.nan], "log-probs that are not finite"),
        ([-math.inf, -1.0], "log-probs that are not finite"),
        ([-1.0], "1 log-probs"),
    ],
)
def test_a_row_whose_log_probs_do_not_fit_is_named(tmp_path, logprobs, found):
    item = {"id": "broken", "source": "self", "prompt_ids": [1], "response_ids": [2, 3], "behavior_logprobs": logprobs}
    write(tmp_path, [item])
    with pytest.raises(TrainingError, match=f"row broken has {found} in behavior_logprobs for 2 response tokens"):
        load_rows(tmp_path, settings())


def test_the_sample_is_of_every_source_and_does_not_depend_on_the_files(tmp_path):
    items = random_items(40)
    write(tmp_path / "one", items)
    write(tmp_path / "two", items[::-1][:13], "b")
    write(tmp_path / "two", items[::-1][13:], "a")
    chosen = settings(gap_rows=9, source_weights={"guided": 0}, max_tokens=16, objective={"kind": "dft"})
    one, two = (load_rows(tmp_path / name, chosen, sample_seed=3).sample for name in ("one", "two"))
    for name in ("kept", "expert"):
        assert [plain(row)[:4] for row in one[name]] == [plain(row)[:4] for row in two[name]]
    assert [row.id for row in one["kept"]] == [row.id for row in one["expert"]]
    assert len(one["kept"]) == 9
    assert {row.source for row in one["kept"]} >= {"guided"}
    assert {row.source for row in one["expert"]} == {"expert"}
    assert max(row.tokens for row in one["kept"]) <= 16
    ordered = sorted(item["id"] for item in items)
    drawn = np.random.default_rng(3).permutation(40)[:9]
    assert [row.id for row in one["kept"]] == [ordered[i] for i in sorted(drawn)]


def test_the_sample_can_be_drawn_from_the_held_out_rows_alone(tmp_path):
    write(tmp_path, random_items(40))
    chosen = {"held_out_rows": 8, "max_tokens": 64, "objective": {"kind": "dft"}}
    for most, drawn in ((5, 5), (8, 8), (30, 8)):
        found = load_rows(tmp_path, settings(gap_rows=most, gap_from="held_out", **chosen), sample_seed=3)
        held_out = {row.id for row in found.held_out}
        assert held_out.isdisjoint(row.id for row in found.rows)
        assert len(held_out) == 8
        for rows in found.sample.values():
            assert len({row.id for row in rows} & held_out) == len(rows) == drawn


def test_reference_log_probs_are_found_whatever_rank_scored_a_row(tmp_path):
    items = random_items(12)
    write(tmp_path / "rewrites", items)
    rows = load_rows(tmp_path / "rewrites", settings()).rows
    scored = [{"id": i["id"], "logprobs": [float(len(i["prompt_ids"]))] * len(i["response_ids"])} for i in items]
    folder = tmp_path / "reference"
    write(folder, scored[7:], "rank-0")
    write(folder, scored[:7], "rank-1")
    write(folder, scored[:2], "rank-2")  # from an earlier try on more ranks
    (folder / "done.json").write_text('{"rows": 12, "ranks": 2}')
    plan = BatchPlan(rows.lengths_R, 4, 64, 2, 0, 1)
    for row in add_reference(None, rows, plan, 0, folder):
        assert list(row.reference) == [float(len(row.prompt_ids))] * len(row.response_ids)
    (folder / "done.json").write_text('{"rows": 12, "ranks": 1}')
    with pytest.raises(TrainingError, match="does not belong to these rows; delete it"):
        add_reference(None, rows, plan, 0, folder)


def test_a_rank_keeps_little_more_than_four_bytes_per_token():
    """The constant part counts too: about 50 MiB of buffers and of libraries that are loaded meanwhile."""
    command = [sys.executable, "-m", "benchmarks.training_rows", "--json", "--steps=5", "--objectives=is"]
    (found,) = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["results"]
    assert found["ratio"] < 1.5
