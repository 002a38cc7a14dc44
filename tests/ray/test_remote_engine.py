"""Rewriting on real Ray with a remote engine: our own services over a scripted engine, or no server at all."""

import json

import pytest

from offsft.config.loading import load
from offsft.data.tables import REWRITE_SCHEMA
from offsft.errors import EngineError
from offsft.rewrite.run import run_rewrite
from offsft.storage.paths import dataset
from offsft.storage.run_folder import RunFolder
from tests.unit.inference.remote_server import our_application, running

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
FATES = ("self", "guided", "expert")


def start(tmp_path, model, url, *overrides):
    lines = [{"problem": f"{FATES[i % 3]} {i}", "solution": f"It is \\boxed{{{i}}}"} for i in range(6)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = [f"run={tmp_path / 'run'}", f"data.path={tmp_path / 'p.jsonl'}", f"model.path={model}"]
    remote = ["engine.kind=remote", f"engine.remote.url={url}", "engine.remote.model=base"]
    stages = "[{kind: self, waves: [2]}, {kind: guided, waves: [2]}, {kind: expert}]"
    waves = [f"rewrite.stages={stages}", "rewrite.max_tokens=40", "verify.timeout_s=60"]
    recipe = load(None, [*settings, *remote, *waves, *overrides])
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    return recipe, folder


def test_each_problem_is_rewritten_and_what_it_cost_is_counted(tmp_path, tiny_model, console):
    with running(our_application()) as url:
        recipe, folder = start(tmp_path, tiny_model, url, "engine.remote.completion_price=1e6")
        result = run_rewrite(recipe, folder, tiny_model, console)
    assert result["sources"] == dict.fromkeys(FATES, 2)
    rows = dataset(folder.rewrites).to_table().cast(REWRITE_SCHEMA).to_pylist()
    assert all(row["problem"].startswith(row["source"]) for row in rows)
    assert all((row["behavior_logprobs"] is None) == (row["source"] == "expert") for row in rows)
    assert {len(row["expert_logprobs"]) == len(row["expert_ids"]) for row in rows} == {True}
    usage = result["usage"]
    assert usage["completion_tokens"] >= result["generated_tokens"]
    assert usage["cost"] == pytest.approx(usage["completion_tokens"])
    # Already done: no server is asked, and the counts stay.
    assert run_rewrite(recipe, folder, tiny_model, console)["usage"] == usage


def test_without_log_probs_rows_are_whole_but_for_them(tmp_path, tiny_model, console):
    with running(our_application()) as url:
        recipe, folder = start(tmp_path, tiny_model, url, "engine.remote.vllm_extensions=false")
        result = run_rewrite(recipe, folder, tiny_model, console)
    rows = dataset(folder.rewrites).to_table().to_pylist()
    assert len(rows) == 6
    for name in ("behavior_logprobs", "policy_logprobs", "expert_logprobs", "expert_mean_logprob"):
        assert {row[name] for row in rows} == {None}
    assert (result["expert_mean_logprob"], result["kept_mean_logprob"]) == (None, None)
    assert "gap" not in result


def test_a_server_that_is_away_ends_the_job_with_its_reason(tmp_path, tiny_model, console):
    recipe, folder = start(tmp_path, tiny_model, "http://127.0.0.1:9/v1", "engine.remote.tries=2")
    with pytest.raises(EngineError, match=r"engine\.remote: http://127\.0\.0\.1:9/v1 gave no answer in 2 tries"):
        run_rewrite(recipe, folder, tiny_model, console)
