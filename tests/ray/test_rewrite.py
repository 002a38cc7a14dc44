"""The rewriting stage on real Ray with a scripted sampler: every row exactly once, whatever happens."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import ray
import scripted_problems
from scripted_problems import scripted_sampler, write_problems

from offsft.config.loading import load
from offsft.errors import ConfigError, DataError, EngineError
from offsft.rewrite.run import run_rewrite
from offsft.storage.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(scripted_problems)


def start(tmp_path, data, *overrides):
    settings = [f"run={tmp_path / 'run'}", f"data.path={data}", "rewrite.commit_problems=4", "rewrite.max_tokens=40"]
    recipe = load(
        None,
        [
            *settings,
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
            *overrides,
        ],
    )
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    return recipe, folder


def rewrites(folder):
    return pyarrow.dataset.dataset(folder.rewrites, format="parquet").to_table().to_pylist()


def quarantine(folder):
    return pyarrow.dataset.dataset(folder.quarantine, format="parquet").to_table().to_pylist()


def test_each_problem_is_rewritten_once_by_its_stage(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 30)
    # A name that Ray's labels do not accept unchanged.
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl", f"run={tmp_path / 'mein lauf é 走る'}")
    result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    rows = rewrites(folder)
    assert {row["problem"] for row in rows} == {f"{('self', 'guided', 'expert')[i % 3]} {i}" for i in range(30)}
    assert len(rows) == 30
    assert all(row["source"] == row["problem"].split()[0] for row in rows)
    assert (result["problems"], result["quarantined"]) == (30, 0)
    assert list(result["sources"].items()) == [("self", 10), ("guided", 10), ("expert", 10)]
    assert result["generated_tokens"] == sum(row["generated_tokens"] for row in rows) > 0
    for row in rows:
        assert len(row["response_ids"]) == len(row["policy_logprobs"])
        assert (row["behavior_logprobs"] is None) == (row["source"] == "expert")

    again = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_problems.must_not_start)
    assert again["generated_tokens"] == result["generated_tokens"]


def test_nothing_fails_for_taking_longer_than_ray_data_waits(tmp_path, tiny_model, console, monkeypatch):
    """Ray Data gives up after half an hour without a finished group; here after a second, as long as an actor's start."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1)
    write_problems(tmp_path / "p.jsonl", 4)
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl")
    run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    assert len(rewrites(folder)) == 4


def test_what_is_committed_is_kept_and_the_rest_is_done(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 40)
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl", "engine.concurrent_commits=1")

    def dies_late(prompts):
        sampler = scripted_sampler(prompts)
        play = sampler.script

        def script(prompt, number):
            if "self 39" in prompt:
                raise RuntimeError("out of order")
            return play(prompt, number)

        sampler.script = script
        return sampler

    with pytest.raises(ray.exceptions.RayError):
        run_rewrite(recipe, folder, tiny_model, console, sampler_factory=dies_late)
    first = {row["id"]: row for row in rewrites(folder)}
    assert 0 < len(first) < 40
    run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    rows = rewrites(folder)
    assert Counter(row["id"] for row in rows).most_common(1)[0][1] == 1
    assert len(rows) == 40
    after = {row["id"]: row for row in rows}
    assert all(after[key] == row for key, row in first.items())


def test_bad_rows_go_to_quarantine_with_their_place(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 6)
    bad = [
        b'{"problem": "half',
        b'{"problem": "\xff\xfe"}',
        b'{"solution": "1"}',
        b'{"problem": "", "solution": "1"}',
        b'{"problem": "no answer here", "solution": "none"}',
        b'{"problem": "self  0", "solution": "\\\\boxed{0}"}',
        json.dumps({"problem": "long " * 400, "solution": "\\boxed{1}"}).encode(),
    ]
    with (tmp_path / "p.jsonl").open("ab") as file:
        file.write(b"\n" + b"\n".join(bad) + b"\n")
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl")
    result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    assert result["problems"] == len(rewrites(folder)) == 6
    assert result["quarantined"] == 7
    found = {row["line"]: row["reason"] for row in quarantine(folder)}
    assert found == {
        8: "bad_json",
        9: "not_utf8",
        10: "missing_field",
        11: "empty_field",
        12: "no_answer",
        13: "duplicate",
        14: "too_long",
    }
    assert all(row["file"].endswith("p.jsonl") and row["detail"] for row in quarantine(folder))


def test_parquet_a_folder_and_a_limit(tmp_path, tiny_model, console):
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"q": f"self {i}", "s": f"\\boxed{{{i}}}"} for i in range(9)]
    pq.write_table(pa.Table.from_pylist(rows[:5]), data / "a.parquet")
    (data / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[5:]))
    recipe, folder = start(tmp_path, data, "data.fields.problem=q", "data.fields.solution=s", "data.limit=7")
    run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    assert sorted(row["problem"] for row in rewrites(folder)) == [f"self {i}" for i in range(7)]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, ConfigError, "does not exist; give a JSONL or Parquet file"),
        ("", DataError, "is empty"),
        ("\n\n", DataError, "holds no rows"),
        ("{}\n{}\n", DataError, "not one of 2 rows .* is a valid problem .*p.jsonl:1: the field 'problem' is missing"),
    ],
)
def test_input_that_cannot_be_used_at_all_is_one_clear_error(tmp_path, tiny_model, console, content, kind, message):
    if content is not None:
        (tmp_path / "p.jsonl").write_text(content)
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl")
    with pytest.raises(kind, match=message):
        run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    assert not folder.problems.exists()


def test_problems_that_a_file_has_more_are_added_and_the_others_kept(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 6)
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl")
    run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    first = {row["id"]: row for row in rewrites(folder)}
    write_problems(tmp_path / "p.jsonl", 9)
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write("{}\n")
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl", "data.on_change=add")
    for _ in range(2):
        result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
        after = {row["id"]: row for row in rewrites(folder)}
        assert len(after) == len(rewrites(folder)) == result["problems"] == 9
        assert all(after[key] == row for key, row in first.items())
        assert [row["reason"] for row in quarantine(folder)] == ["missing_field"]


def test_an_engine_that_cannot_start_gives_its_own_reason(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 3)
    recipe, folder = start(tmp_path, tmp_path / "p.jsonl", "engine.start_tries=1")
    with pytest.raises(EngineError, match="no such device"):
        run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_problems.broken_sampler)
