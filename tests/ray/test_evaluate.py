"""Suites through the pool: every sample kept, the table right, finished work not repeated, nothing mixed."""

import json

import pyarrow.dataset
import pytest
import ray
import scripted_problems
from scripted_problems import always_right, must_not_start, scripted_sampler, write_problems

from offsft.config.loading import evaluation_settings, load
from offsft.errors import RunFolderError
from offsft.evaluate.run import run_evaluate
from offsft.report.evaluation_page import write_evaluation_page
from offsft.rewrite.run import run_rewrite
from offsft.storage.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(scripted_problems)

SUITES = """
easy: {file: easy.jsonl, problem: q, answer: a}
hard: {file: hard.jsonl, answer_form: boxed, style: llama-boxed}
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    easy = [{"q": f"{'self' if i < 20 else 'expert'} {i}", "a": i} for i in range(25)]
    hard = [{"problem": f"expert {i}", "answer": f"so \\boxed{{{i}}}"} for i in range(3)]
    hard.append({"problem": "expert 9 " + "very " * 300, "answer": "\\boxed{9}"})
    for name, rows in (("easy", easy), ("hard", hard)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "both.yaml").write_text(SUITES)
    (folder / "easy.yaml").write_text(SUITES.strip().splitlines()[0])
    return folder


def evaluated(folder, models, suites, console, sampler_factory):
    arguments = [f"suites=[{suites}]", "samples=4", "greedy=true", "max_tokens=40", f"run={folder}"]
    recipe = load(None, evaluation_settings(None, [*arguments, "verify.timeout_s=60"]))
    run = RunFolder(recipe.run)
    run.open(recipe)
    result = run_evaluate(recipe, run, models, console, sampler_factory=sampler_factory)
    return run, result, json.loads((run.path / "evaluation.json").read_text())


def answers(run, model):
    table = pyarrow.dataset.dataset(run.evaluation / model, format="parquet").to_table()
    return {row["id"]: row for row in table.to_pylist()}


def test_a_table_grows_by_suites_and_models_and_nothing_is_sampled_twice(tmp_path, described, tiny_model, console):
    first = evaluated(tmp_path / "r", {"base": tiny_model}, described / "easy.yaml", console, scripted_sampler)
    run, result, table = first
    rows = answers(run, "base")
    assert set(rows) == {f"easy-{line}" for line in range(1, 26)}
    # For `self` problems the script is wrong once, then right; the greedy answer is the fifth.
    assert [sample["outcome"] for sample in rows["easy-1"]["samples"]] == ["wrong", *["correct"] * 3]
    assert [sample["extracted"] for sample in rows["easy-1"]["samples"]] == ["1", "0", "0", "0"]
    assert [sample["outcome"] for sample in rows["easy-1"]["greedy"]] == ["correct"]
    (row,) = table["rows"]
    assert (row["problems"], row["samples"], result["base"]["accuracy"]) == (25, 4, pytest.approx(0.6))
    assert row["mean"]["mean"] == pytest.approx(0.8 * 0.75)
    assert [row["pass"][k]["mean"] for k in ("1", "2", "4")] == pytest.approx([0.6, 0.8, 0.8])
    assert row["maj"]["mean"] == row["greedy"]["mean"] == pytest.approx(0.8)

    models = {"base": tiny_model, "better": tiny_model}
    run, result, table = evaluated(tmp_path / "r", models, described / "both.yaml", console, always_right)
    assert result["problems"] == 28
    assert {key: row for key, row in answers(run, "base").items() if row["suite"] == "easy"} == rows
    means = {(row["suite"], row["model"]): row["mean"]["mean"] for row in table["rows"]}
    assert means["easy", "base"] == pytest.approx(0.6)
    assert means["hard", "base"] == means["hard", "better"] == means["easy", "better"] == 1.0
    assert means["mean of suites", "base"] == pytest.approx(0.8)
    changes = {each["suite"]: each["mean"] for each in table["differences"]}
    assert changes == pytest.approx({"easy": 0.4, "hard": 0.0, "mean of suites": 0.2})
    assert {row["suite"]: row["left_out"] for row in table["rows"] if row["model"] == "base"}["hard"] == 1

    again = evaluated(tmp_path / "r", models, described / "both.yaml", console, must_not_start)
    assert again[2] == table
    write_evaluation_page(run.path)
    assert "<td>better less base</td><td>+40.0" in (run.path / "evaluation.html").read_text()


def test_held_out_problems_and_what_the_training_cost_elsewhere(tmp_path, described, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 3)
    settings = [f"run={tmp_path / 'r'}", f"evaluate.path={tmp_path / 'p.jsonl'}", "evaluate.max_tokens=40"]
    settings += ["evaluate.temperature=0", f"evaluate.retention=[{described / 'easy.yaml'}]"]
    recipe = load(None, [*settings, "evaluate.drift_problems=2", "verify.timeout_s=60"])
    run = RunFolder(recipe.run)
    run.open(recipe)
    models = {"base": tiny_model, "trained": tiny_model}
    result = run_evaluate(recipe, run, models, console, sampler_factory=always_right)
    assert (result["suites"], result["problems"]) == (["held_out", "easy"], 3), "the suite of retention is apart"
    assert [each["suite"] for each in result["retention"]] == ["easy"]
    table = json.loads((run.path / "evaluation.json").read_text())
    assert {row["suite"]: row["retention"] for row in table["rows"]} == {"held_out": False, "easy": True}
    assert {each["suite"] for each in table["differences"]} == {"held_out", "easy"}
    rows = answers(run, "trained")
    drift = [row for row in rows.values() if row["drift"]]
    assert len(drift) == 2
    assert {row["suite"] for row in drift} == {"held_out"}
    first = answers(run, "base")
    assert all(row["drift"]["response_ids"] == first[row["id"]]["drift"]["response_ids"] for row in drift)
    assert [each["model"] for each in table["kl"]] == ["trained"]
    assert result["kl"]["trained"]["mean"] == table["kl"][0]["mean"]


def test_problems_of_a_suite_are_left_out_of_training(tmp_path, described, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 3)  # `self 0`, which is the first of the suite `easy`, `guided 1`, `expert 2`
    settings = [
        f"run={tmp_path / 'r'}",
        f"data.path={tmp_path / 'p.jsonl'}",
        f"data.exclude_suites=[{described / 'easy.yaml'}]",
    ]
    recipe = load(None, [*settings, "rewrite.max_tokens=40", "verify.timeout_s=60"])
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    assert (result["problems"], result["quarantine_reasons"]) == (2, {"contaminated": 1})
    (row,) = pyarrow.dataset.dataset(folder.quarantine, format="parquet").to_table().to_pylist()
    assert (row["line"], row["raw"]) == (1, "self 0")
    assert row["detail"] == "it holds 100% of the word sequences of easy-1 (data.exclude_suites)"


def test_what_would_mix_two_experiments_is_refused(tmp_path, described, tiny_model, console):
    suites = described / "both.yaml"
    (tmp_path / "s.yaml").write_text(f"mine: {{file: {described / 'easy.jsonl'}, problem: q, answer: a}}")
    run = RunFolder(str(tmp_path / "r"))
    (run.evaluation / "suites").mkdir(parents=True)
    (run.evaluation / "suites" / "gone.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"holds answers to gone, which evaluate\.suites does not name"):
        evaluated(run.path, {"base": tiny_model}, suites, console, must_not_start)
    (run.evaluation / "suites" / "gone.json").unlink()
    (run.evaluation / "suites" / "mine.json").write_text('{"digest": "of other rows", "left_out": 0}')
    with pytest.raises(RunFolderError, match="suite mine is not the one"):
        evaluated(run.path, {"base": tiny_model}, tmp_path / "s.yaml", console, must_not_start)
