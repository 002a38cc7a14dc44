"""A stage in a module outside the repository: the batch job, the HTTP rewriter and the report run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
import pytest
from scripted_problems import scripted_sampler, write_problems
from starlette.testclient import TestClient

from offsft.config.loading import load
from offsft.prompts import load_prompts
from offsft.report.page import write_report
from offsft.rewrite.cascade import cascade_settings
from offsft.verify import open_verifier
from services.admission import Gate
from services.app import build_app
from services.auth import Keys
from services.dependencies import Dependencies
from services.rewriting import Rewriter
from services.served_models import Models, Served
from services.settings import Limits

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.ray

MODULE = """
from offsft.config.stages import WavesConfig
from offsft.rewrite.stages.base import Prompt, Stage


class HintConfig(WavesConfig):
    hint: str


class Hint(Stage[HintConfig]):
    config = HintConfig

    async def prompt(self, problem, attempts, wave):
        ids = self.prompts.ask("{problem} {hint}", problem, hint=self.settings.hint)
        return Prompt(ids, details={"hint": self.settings.hint, "wave": wave})
"""
STAGES = "[{kind: 'stages_of_mine:Hint', name: hint, waves: [1, 1], hint: think}, {kind: guided, waves: [2]}]"


def test_a_stage_that_the_repository_does_not_know_runs_everywhere(tmp_path, tiny_model, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stages_of_mine.py").write_text(MODULE)
    write_problems(tmp_path / "p.jsonl", 9)
    settings = [f"run={tmp_path / 'run'}", f"data.path={tmp_path / 'p.jsonl'}", "rewrite.max_tokens=40"]
    settings += [
        "verify.timeout_s=60",
        "rewrite.guards={support: null, first_support: null, bare: false}",
        f"rewrite.stages={STAGES}",
        "rewrite.expert=none",
    ]
    rows = batch_job(tmp_path, tiny_model, settings)
    assert {row["problem"].split()[0]: row["source"] for row in rows.values()} == {
        "self": "hint",
        "guided": "guided",
        "expert": "unsolved",
    }
    kept = [json.loads(row["details"]) for row in rows.values() if row["source"] == "hint"]
    assert kept == [{"hint": "think", "wave": 1}] * 3
    monkeypatch.syspath_prepend(tmp_path / "mine")
    check_http(tmp_path, tiny_model, load(None, settings), rows)
    counted = json.loads((tmp_path / "run" / "rewrite.json").read_text())
    assert list(counted["sources"].items()) == [("hint", 3), ("guided", 3), ("unsolved", 3)]
    write_report(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "hint 33" in page.replace("\u00a0", " ")
    assert "3 in the stage hint" in page


def batch_job(tmp_path, model, settings):
    """The rows written by a separate driver, which finds the module on PYTHONPATH, as its actors do."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'mine'}", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(Path(__file__).with_name("rewriting_job.py")), model, "0"]
    done = subprocess.run(
        [*command, *settings], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pyarrow.dataset.dataset(tmp_path / "run" / "rewrites", format="parquet").to_table().to_pylist()
    return {row["problem"]: row for row in rows}


def check_http(tmp_path, model, recipe, rows):
    """Check that POST /v1/rewrite gives the rows that the batch job wrote."""
    models, limits, verifier = Models(), Limits(), open_verifier(recipe.verify)
    prompts = load_prompts(model, None, recipe.prompt, recipe.model.thinking)
    models.replace([Served("tiny", "r", lambda: prompts, scripted_sampler)], "tiny")
    rewriter = Rewriter(cascade_settings(recipe.rewrite, recipe.model.context_tokens), verifier, limits)
    app = build_app(Dependencies(limits, Keys(), Gate(limits), models, rewriter, "math", 5.0, None), on_serve=False)
    try:
        with TestClient(app) as client:
            for line in (tmp_path / "p.jsonl").read_text().splitlines():
                problem = json.loads(line)
                row = rows[problem["problem"]]
                answer = client.post("/v1/rewrite", json=problem | {"keep_attempts": True}).json()
                assert {key: answer[key] for key in ("source", "response", "attempts")} == {
                    key: row[key] for key in ("source", "response", "attempts")
                }
                assert answer["details"] == (json.loads(row["details"]) if row["details"] else None)
                assert answer["policy_logprobs"] == pytest.approx(row["policy_logprobs"], abs=1e-6)
    finally:
        verifier.close()
