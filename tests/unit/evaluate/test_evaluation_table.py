"""The table of an evaluation, its browsable page, and the settings of jobs.evaluate."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from offsft.config.loading import contamination_settings, evaluation_settings, load
from offsft.data.tables import EVALUATION_SCHEMA
from offsft.errors import ConfigError
from offsft.evaluate.statistics import ScoreEstimate
from offsft.evaluate.table import comma_separated, evaluation_table, markdown, write_table
from offsft.pipeline.stages import named_models
from offsft.report.evaluation_page import write_evaluation_page
from offsft.report.run_data import read_samples

HOSTILE = "</script><script>window.injected = 1</script> {{ 7 * 7 }}"


def sample(correct, answer="x", tokens=10):
    outcome = "correct" if correct else "truncated" if answer is None else "wrong"
    return {"response": f"It is {answer}. {HOSTILE}", "outcome": outcome, "extracted": answer, "tokens": tokens}


def table_of(problems):
    rows = [
        {"id": f"{suite}-{n}", "suite": suite, "problem": HOSTILE, "answer": "7", "samples": samples, "greedy": []}
        for suite, of_suite in problems.items()
        for n, samples in enumerate(of_suite)
    ]
    return pa.Table.from_pylist(rows, schema=EVALUATION_SCHEMA)


@pytest.fixture
def results():
    right, wrong, cut = sample(True, "7"), sample(False, "8"), sample(False, None, 40)
    return {
        "base": table_of({"a": [[right, wrong], [wrong, cut]], "b": [[wrong, wrong]]}),
        "after": table_of({"a": [[right, right], [right, wrong]], "b": [[right, wrong]]}),
    }


def test_rows_differences_and_their_mean(results):
    table = evaluation_table(results, {"a": 0, "b": 3})
    found = {(row["suite"], row["model"]): row for row in table["rows"]}
    a = found["a", "base"]
    assert (a["mean"]["mean"], a["pass"]["2"]["mean"], a["maj"]["mean"]) == pytest.approx((0.25, 0.5, 0.25))
    assert (a["truncated_share"], a["no_answer_share"], a["mean_tokens"]) == pytest.approx((0.25, 0.0, 17.5))
    assert found["mean of suites", "base"]["mean"]["mean"] == pytest.approx(0.125)
    assert found["b", "base"]["left_out"] == 3
    changes = {(each["suite"], each["model"], each["less"]): each["mean"] for each in table["differences"]}
    assert changes == pytest.approx({(s, "after", "base"): 0.5 for s in ("a", "b", "mean of suites")})


def test_the_same_figures_in_every_form(results, tmp_path):
    table = evaluation_table(results, {"a": 0, "b": 3})
    text = markdown(table)
    assert "| a | base | 2 | 25.0 (0.0 to 50.0) | 50.0 ± 50.0 | 25.0 ± 25.0 | 25.0 % | 33.3 | 0.0 % | 18 |" in text
    assert "| b | base | 1 (3 left out) | 0.0 (0.0 to 0.0) |" in text
    assert "| a | +50.0 (+50.0 to +50.0) | after less base |" in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(table))))
    (line,) = [each for each in lines if (each["suite"], each["model"], each["figure"]) == ("a", "base", "pass@2")]
    assert (float(line["value"]), float(line["stderr"])) == (0.5, 0.5)
    write_table(table, tmp_path)
    kept = json.loads((tmp_path / "evaluation.json").read_text())
    assert kept["rows"][0]["pass"]["2"]["mean"] == 0.5
    assert [row["mean"]["stderr"] for row in kept["rows"] if row["suite"] == "b"] == [None, None], "one problem"


def test_suites_of_retention_are_marked_and_not_in_the_mean_of_suites(results):
    table = evaluation_table(results, {"a": 0, "b": 0}, retention=["b"])
    assert {row["suite"]: row["retention"] for row in table["rows"]} == {"a": False, "b": True}
    assert [each["suite"] for each in table["differences"]] == ["a", "b"]
    assert "| b (retention) | base |" in markdown(table)


def test_the_divergence_from_the_first_model_is_in_every_form(results):
    kl = ScoreEstimate(0.25, 0.1, 0.05, 0.45)
    table = evaluation_table(results, {"a": 0, "b": 0}, drift={"after": kl})
    assert table["kl"] == [{"model": "after", "mean": 0.25, "stderr": 0.1, "low": 0.05, "high": 0.45}]
    assert "| after | 0.2500 (0.0500 to 0.4500) |" in markdown(table)
    assert ",after,kl,0.25,0.1,0.05,0.45" in comma_separated(table)


def test_the_page_carries_each_problem_of_each_model_as_text(results, tmp_path):
    write_table(evaluation_table(results, {"a": 0, "b": 3}), tmp_path)
    for model, table in results.items():
        (tmp_path / "evaluation" / model).mkdir(parents=True)
        pq.write_table(table, tmp_path / "evaluation" / model / "0.parquet")
    write_evaluation_page(tmp_path)
    page = (tmp_path / "evaluation.html").read_text()
    rows = json.loads(page.partition('<script type="application/json">')[2].partition("</script>")[0])
    assert [(row["model"], row["id"]) for row in rows] == [
        (model, problem) for problem in ("a-0", "a-1", "b-0") for model in ("base", "after")
    ]
    assert rows[0]["problem"] == HOSTILE
    assert "<script>window" not in page
    assert "25.0 (0.0 to 50.0)" in page
    assert "http-equiv" in page
    assert "after less base" in page


def test_suites_share_what_the_page_has_room_for(results, tmp_path, monkeypatch):
    monkeypatch.setattr("offsft.report.run_data.MAX_ROWS", 4)
    for model, table in results.items():
        (tmp_path / model).mkdir()
        pq.write_table(table, tmp_path / model / "0.parquet")
    carried = read_samples(tmp_path, ["base", "after"], {"a", "b"})
    assert [(row["suite"], row["model"]) for row in carried.rows] == [
        ("a", "base"), ("a", "base"), ("b", "base"), ("b", "after")
    ]  # fmt: skip
    assert carried.total == 6


def test_short_settings_of_the_job():
    short = ["model=embedded", "suites=[gsm8k]", "samples=4", "limit=3", "model.dtype=float32", "engine.actors=2"]
    recipe = load(None, evaluation_settings(None, short))
    assert recipe.run == "runs/evaluate"
    assert (recipe.evaluate.models, recipe.evaluate.suites) == (["embedded"], ["gsm8k"])
    assert (recipe.evaluate.samples, recipe.evaluate.limit, recipe.model.dtype) == (4, 3, "float32")
    recipe = load(None, evaluation_settings(None, ["model=[a=x/y,runs/b/model]", "run=r"]))
    assert (recipe.run, named_models(recipe.evaluate.models)) == ("r", {"a": "x/y", "b": "runs/b/model"})
    assert named_models(["runs/a=b/m"]) == {"m": "runs/a=b/m"}
    recipe = load(None, contamination_settings(None, ["path=p.jsonl", "suites=[gsm8k]"]))
    assert (recipe.data.path, recipe.data.exclude_suites, recipe.evaluate.suites) == ("p.jsonl", ["gsm8k"], [])


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a/m", "b/m"], "two models are named m"),
        (["="], "no good name"),
        (["problems=x"], "no good name"),
        (["a b=x"], "no good name"),
        (["a="], "no good name"),
    ],
)
def test_models_without_names_of_their_own_are_refused(models, message):
    with pytest.raises(ConfigError, match=message):
        named_models(models)


def test_a_greedy_answer_beside_greedy_answers_is_refused():
    with pytest.raises(ConfigError, match=r"evaluate\.greedy=true adds nothing"):
        load(None, ["run=r", "evaluate.greedy=true", "evaluate.temperature=0"])
