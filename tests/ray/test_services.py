"""The same problems by the same script: the batch job on Ray and the HTTP application keep the same."""

import json

import pyarrow.dataset
import pytest
import ray
import scripted_problems
from scripted_problems import scripted_sampler, write_problems
from starlette.testclient import TestClient

from offsft.cascade import cascade_settings
from offsft.config import Limits
from offsft.prompts import load_prompts
from offsft.recipes import load
from offsft.rewrite.pipeline import run_rewrite
from offsft.run_folder import RunFolder
from offsft.verify import open_verifier
from services.app import build_app
from services.gate import Gate
from services.keys import Keys
from services.models import Models, Served
from services.parts import Parts
from services.rewriting import Rewriter

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(scripted_problems)


def test_batch_job_and_http_give_the_same_result(tmp_path, tiny_model, console):
    problems = tmp_path / "p.jsonl"
    write_problems(problems, 9)
    recipe = load(
        None, [f"run={tmp_path / 'run'}", f"data.path={problems}", "rewrite.max_tokens=40", "verify.timeout_s=20"]
    )
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    rows = {row["problem"]: row for row in pyarrow.dataset.dataset(folder.rewrites).to_table().to_pylist()}

    models, limits, verifier = Models(), Limits(), open_verifier(recipe.verify)
    prompts = load_prompts(tiny_model, None, recipe.prompt)
    models.replace([Served("tiny", "r", lambda: prompts, scripted_sampler)], "tiny")
    cascade = cascade_settings(recipe.rewrite, recipe.model.context_tokens)
    rewriter = Rewriter(cascade, verifier, limits)
    client = TestClient(
        build_app(Parts(limits, Keys(), Gate(limits), models, rewriter, "math", 5.0, None), on_serve=False)
    )
    try:
        for line in problems.read_text().splitlines():
            row = rows.pop(json.loads(line)["problem"])
            answer = client.post("/v1/rewrite", json=json.loads(line) | {"keep_attempts": True}).json()
            assert {key: answer[key] for key in ("source", "response", "answer", "attempts")} == {
                key: row[key] for key in ("source", "response", "answer", "attempts")
            }
            assert answer["policy_logprobs"] == pytest.approx(row["policy_logprobs"], abs=1e-6)
            assert answer["behavior_logprobs"] == pytest.approx(row["behavior_logprobs"], abs=1e-6)
            assert [token["policy_logprob"] for token in answer["expert_tokens"]] == pytest.approx(
                row["expert_logprobs"]
            )
    finally:
        verifier.close()
    assert not rows
