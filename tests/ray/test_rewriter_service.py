"""The HTTP services: the same result as the batch job's, and the configs for Serve."""

import json
import shutil
from pathlib import Path

import pyarrow.dataset
import pytest
import ray
import scripted_problems
from ray.serve.schema import ServeDeploySchema
from scripted_problems import scripted_sampler, write_problems
from starlette.testclient import TestClient

from offsft.config.loading import load
from offsft.errors import ConfigError, ModelError
from offsft.models import fingerprint
from offsft.prompts import load_prompts
from offsft.rewrite.cascade import cascade_settings
from offsft.rewrite.run import run_rewrite
from offsft.storage.run_folder import RunFolder
from offsft.verify import open_verifier
from services.admission import Gate
from services.app import build_app
from services.auth import Keys
from services.dependencies import Dependencies
from services.deploy import read_config, with_model
from services.rewriting import Rewriter
from services.served_models import Models, Served
from services.settings import Generator, Limits, Routing, Serving, model_folder, validate

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(scripted_problems)


def test_batch_job_and_http_give_the_same_result(tmp_path, tiny_model, console):
    problems = tmp_path / "p.jsonl"
    write_problems(problems, 9)
    recipe = load(
        None,
        [
            f"run={tmp_path / 'run'}",
            f"data.path={problems}",
            "rewrite.max_tokens=40",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
        ],
    )
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    run_rewrite(recipe, folder, tiny_model, console, sampler_factory=scripted_sampler)
    rows = {row["problem"]: row for row in pyarrow.dataset.dataset(folder.rewrites).to_table().to_pylist()}

    models, limits, verifier = Models(), Limits(), open_verifier(recipe.verify)
    prompts = load_prompts(tiny_model, None, recipe.prompt, recipe.model.thinking)
    models.replace([Served("tiny", "r", lambda: prompts, scripted_sampler)], "tiny")
    cascade = cascade_settings(recipe.rewrite, recipe.model.context_tokens)
    rewriter = Rewriter(cascade, verifier, limits)
    app = build_app(Dependencies(limits, Keys(), Gate(limits), models, rewriter, "math", 5.0, None), on_serve=False)
    try:
        with TestClient(app) as client:  # one event loop for all requests, as in a server
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


def test_a_second_model_is_the_default_and_the_config_stays_one_of_serve(tiny_model):
    config = read_config(ROOT / "services" / "local.yaml")
    more = with_model(config, "trained", tiny_model)
    ServeDeploySchema.model_validate(more)
    gateway, base, trained = more["applications"]
    routing = validate(Routing, gateway["deployments"][0]["user_config"], "routing")
    assert routing.default == "trained"
    assert [model.application for model in routing.models] == [base["name"], trained["name"]]
    assert trained["args"]["path"] == routing.models[1].path == tiny_model
    assert len(config["applications"]) == 2  # unchanged
    for app, kind in ((gateway, Serving), (base, Generator), (trained, Generator)):
        validate(kind, app["args"], app["name"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"default": "other"}, "default=other is none of the served models base"),
        ({"models": []}, "models"),
        ({"surprise": 1}, "surprise=1"),
    ],
)
def test_a_wrong_routing_is_refused(change, message):
    routing = {"default": "base", "models": [{"name": "base", "path": "embedded", "application": "a"}]}
    with pytest.raises(ConfigError, match=message):
        validate(Routing, routing | change, "the gateway's user_config")


def test_a_revision_names_the_content_of_a_folder(tmp_path, tiny_model):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    revision = fingerprint(str(copy))
    assert revision == fingerprint(tiny_model)
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert revision != fingerprint(str(copy))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        model_folder(str(tmp_path))
