"""Scoring existing responses through the pool: each row once, with the log-probs of the scoring model."""

import pyarrow.dataset
import pytest
import ray
import scripted_problems
from scripted_problems import scripted_sampler, write_problems

from offsft.config import GapSide
from offsft.config.loading import load
from offsft.inference.score import run_score
from offsft.rewrite.run import run_rewrite
from offsft.storage.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(scripted_problems)


def rows_of(folder):
    table = pyarrow.dataset.dataset(folder, format="parquet").to_table()
    return {row["id"]: row for row in table.to_pylist()}


def test_what_is_scored_again_is_what_rewriting_recorded(tmp_path, tiny_model, console):
    write_problems(tmp_path / "p.jsonl", 9)
    recipe = load(
        None,
        [
            f"run={tmp_path / 'run'}",
            f"data.path={tmp_path / 'p.jsonl'}",
            "rewrite.commit_problems=4",
            "rewrite.max_tokens=40",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
        ],
    )
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    result = run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    recorded = rows_of(folder.rewrites)
    # Guided rows were sampled with the solution in view, and are scored without it.
    assert result["gap"]["kept"]["self"]["kl_k3"] == pytest.approx(0, abs=1e-6)
    assert result["gap"]["kept"]["guided"]["kl_k3"] > 0
    assert result["gap"]["kept"]["expert"]["mean_log_ratio"] < 0
    for responses, column in (("kept", "policy_logprobs"), ("expert", "expert_logprobs")):
        output = folder.gap / "scores" / responses
        side = GapSide(responses=responses)
        for factory in (scripted_sampler, scripted_problems.must_not_start):
            run_score(recipe, side, tiny_model, folder.rewrites, output, folder, console, sampler_factory=factory)
        scored = rows_of(output)
        assert scored.keys() == recorded.keys()
        for key, row in scored.items():
            assert row["logprobs"] == pytest.approx(recorded[key][column])
            assert row["source"] == ("expert" if responses == "expert" else recorded[key]["source"])
            assert row["behavior"] == (None if responses == "expert" else recorded[key]["behavior_logprobs"])
