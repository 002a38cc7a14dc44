"""The rows of a probe: which, how many, how often, and in which folder."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.config import ProbeConfig
from offsft.config.loading import load
from offsft.data.tables import PROBLEM_SCHEMA
from offsft.errors import RunFolderError
from offsft.probe.sample import open_sample, split_rows
from offsft.storage.run_folder import RunFolder
from offsft.train.batching import BatchPlan
from offsft.train.loading import load_rows

MODEL = "some/model"


def write_rewrites(run, sources=("self", "guided", "expert") * 10, *, response=4):
    rows = [
        {
            "id": f"{i:02d}",
            "source": source,
            "prompt_ids": [1, 2, 3],
            "response_ids": [] if source == "unsolved" else [i] * response,
            "behavior_logprobs": None if source in ("expert", "unsolved") else [-0.5] * response,
            "expert_ids": [7, 8],
        }
        for i, source in enumerate(sources)
    ]
    (run / "rewrites").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), run / "rewrites" / "a.parquet")
    (run / "rewrite.json").write_text("{}")


def opened(run, *overrides, model=MODEL):
    recipe = load(None, [f"run={run}", "model.dtype=float32", "train.global_batch=4", *overrides])
    return open_sample(recipe, RunFolder(str(run)), model)


def rows_of(sample):
    return pq.read_table(sample.rewrites / "rows.parquet").to_pylist()


@pytest.mark.parametrize(
    ("rows", "batch", "settings", "expected"),
    [
        (1000, 16, {}, (64, 192, 1, 12)),
        (36, 6, {}, (12, 24, 3, 12)),  # the demo: two thirds are passed over three times
        (30, 8, {"steps": 5}, (10, 16, 3, 6)),  # the last pass is completed
        (6, 16, {"steps": 2}, (2, 4, 2, 2)),  # a batch is all there is
        (1000, 256, {}, (64, 256, 12, 12)),
        (1000, 16, {"train_rows": 40}, (64, 32, 6, 12)),
    ],
)
def test_rows_are_split_into_whole_batches_and_held_out_ones(rows, batch, settings, expected):
    split = split_rows(rows, ProbeConfig(**settings), batch)
    assert (split.held_out, split.trained, split.epochs, split.steps) == expected
    plan = BatchPlan([1] * split.trained, batch, 64, 1, 0, split.epochs)
    assert plan.steps == split.steps
    assert split.held_out + split.trained <= rows


def test_training_holds_out_what_the_probe_measures(tmp_path):
    write_rewrites(tmp_path)
    sample = opened(tmp_path, "probe.steps=5")
    by_hash = sorted((f"{i:02d}" for i in range(30)), key=lambda key: hashlib.sha256(key.encode()).digest())
    assert [row["id"] for row in rows_of(sample)] == by_hash[: 10 + 20]
    recipe = load(None, ["run=x", "train.held_out_rows=10", "train.gap_rows=10", "train.gap_from=held_out"])
    found = load_rows(sample.rewrites, recipe.train, sample_seed=0)
    assert {row.id for row in found.held_out} == set(by_hash[:10])
    for responses in ("kept", "expert"):
        assert {row.id for row in found.sample[responses]} == set(by_hash[:10])
    assert sample.sources == {source: 10 for source in ("self", "guided", "expert")}


def test_rows_that_training_would_not_take_whole_are_not_probed(tmp_path):
    write_rewrites(tmp_path, ["self"] * 6 + ["unsolved"] * 9 + ["guided"] * 5)
    sample = opened(tmp_path, "train.source_weights.guided=0")
    assert {row["source"] for row in rows_of(sample)} == {"self"}
    write_rewrites(tmp_path, ["self"] * 9, response=90)
    with pytest.raises(RunFolderError, match=r"has 0 rows that can be probed, and 6 are needed: .*max_tokens=16, and"):
        opened(tmp_path, "train.max_tokens=16")


def test_the_experts_solutions_of_unsolved_problems_count_where_these_are_probed(tmp_path):
    write_rewrites(tmp_path, ["unsolved"] * 9)
    assert len(rows_of(opened(tmp_path, "train.responses=expert"))) == 3 + 4


def test_the_folder_is_another_where_the_figures_would_be(tmp_path):
    write_rewrites(tmp_path)
    first = opened(tmp_path).folder
    same = ("train.objective.kind=sft", "train.checkpoint_steps=3", "train.gap_rows=9", "probe.keep_models=true")
    for override in same:
        assert opened(tmp_path, override).folder == first, override
    others = (
        "train.learning_rate=1e-3",
        "probe.steps=24",
        "probe.held_out_rows=5",
        "seed=1",
        "train.responses=expert",
        "train.workers=2",
    )
    assert len({first, *(opened(tmp_path, override).folder for override in others)}) == 1 + len(others)
    write_rewrites(tmp_path, ["self"] * 30)
    assert opened(tmp_path).folder != first, "the rows are others"


def test_without_rewrites_the_problems_with_the_experts_solutions_are_probed(tmp_path, tiny_model):
    problems = [
        {"id": f"{i:02d}", "problem": f"What is {i} + 1?", "solution": f"\\boxed{{{i + 1}}}", "answer": str(i + 1)}
        for i in range(9)
    ]
    (tmp_path / "problems").mkdir()
    pq.write_table(pa.Table.from_pylist(problems, schema=PROBLEM_SCHEMA), tmp_path / "problems" / "a.parquet")
    sample = opened(tmp_path, "train.responses=expert", model=tiny_model)
    rows = rows_of(sample)
    assert (len(rows), sample.sources) == (3 + 4, {"expert": 7})
    for row in rows:
        assert row["response_ids"] == row["expert_ids"] != []
        assert row["behavior_logprobs"] is None
    assert len({tuple(row["prompt_ids"]) for row in rows}) == 7
