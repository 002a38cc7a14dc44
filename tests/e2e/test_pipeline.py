"""The whole method on a few problems, as a user runs it: real vLLM, real Ray, real DeepSpeed, the embedded model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset
import pytest

from cluster import local
from cluster.isolation import why_not

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # two engines and more, one after another

SETTINGS = [
    "jobs/recipes/demo.yaml",
    "model.dtype=float32",  # in which engine, trainer and transformers agree closely, on every machine
    "data.generated_problems=6",
    "rewrite.temperature=0.5",
    "rewrite.max_tokens=48",
    "rewrite.stages.self.waves=[1]",
    "rewrite.stages.guided.waves=[1]",
    "train.global_batch=3",
    "train.epochs=1",
    "train.gap_rows=6",
    "evaluate.limit=6",
    "evaluate.max_tokens=48",
]


def job(name, *arguments):
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-m", f"jobs.{name}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run; where nodes can be isolated, submitted to two that share nothing but the run's storage."""
    folder = tmp_path_factory.mktemp("pipeline")
    run = folder / "storage" / "run"
    done = job("pipeline", *SETTINGS, f"run={run}") if why_not() else submitted(folder, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return run, done


def submitted(folder, run):
    """The ended job, without what Ray's own client and server say of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFSFT_STORAGE", str(folder / "storage"))
        local.up(folder / "state", 2, isolated=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= dict(re.findall(r"(RAY_\w+)=(\S+)", (folder / "state" / "env").read_text()))
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."]
    command = [*submit, "--", "python", "-m", "jobs.pipeline", *SETTINGS, f"run={run}"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        own = [line for line in done.stdout.splitlines() if not re.search(r"\b(cli|job_manager)\.py:\d", line)]
        return subprocess.CompletedProcess(
            command, done.returncode, "\n".join(own), done.stderr if done.returncode else ""
        )
    finally:
        local.down(folder / "state")


def test_the_summary_holds_every_stage(finished):
    run, _ = finished
    summary = json.loads((run / "summary.json").read_text())
    rewrite = summary["rewrite"]
    assert rewrite["problems"] == sum(rewrite["sources"].values()) == 6
    assert rewrite["quarantined"] == 0
    assert rewrite["generated_tokens"] > 0
    assert rewrite["tokens_per_s"] > 0
    assert summary["gap"]["expert_mean_logprob"] < 0
    assert summary["gap"]["kept_mean_logprob"] < 0
    for which, when in (("before", None), ("training", "before"), ("training", "after")):
        gap = summary["gap"][which] if when is None else summary["gap"][which][when]
        assert gap["expert"]["all"]["rows"] == gap["kept"]["all"]["rows"] == 6
        assert gap["expert"]["all"]["mean_log_ratio"] < 0
    before = summary["gap"]["before"]["expert"]["all"]["mean_logprob"]
    # The same rows by the engine's arithmetic and by the trainer's.
    assert summary["gap"]["training"]["before"]["expert"]["all"]["mean_logprob"] == pytest.approx(before, abs=0.01)
    assert summary["train"]["padding_share"] < 0.05
    assert summary["train"]["steps"] == 2
    assert summary["train"]["final_loss"] > 0
    assert summary["evaluate"]["problems"] == 6
    assert 0 <= summary["evaluate"]["base"]["accuracy"] <= 1
    assert 0 <= summary["evaluate"]["trained"]["accuracy"] <= 1
    table = json.loads((run / "evaluation.json").read_text())
    found = {row["model"]: row["mean"]["mean"] for row in table["rows"]}
    assert found == pytest.approx({model: summary["evaluate"][model]["accuracy"] for model in ("base", "trained")})
    assert summary["seconds"] > 0


def test_what_was_sampled_is_what_is_trained_on(finished):
    from transformers import AutoTokenizer

    run, _ = finished
    rows = pyarrow.dataset.dataset(run / "rewrites", format="parquet").to_table().to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    assert len({row["id"] for row in rows}) == len(rows) == 6
    for row in rows:
        assert row["response_ids"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["response_ids"][:-1]).strip() == row["response"].strip()
        assert len(row["policy_logprobs"]) == len(row["response_ids"])
        assert row["problem"] in tokenizer.decode(row["prompt_ids"])
        assert all(logprob <= 0 for logprob in row["policy_logprobs"])


def test_the_engine_scores_as_transformers_does(finished):
    import torch
    from transformers import AutoModelForCausalLM

    from offsft.demo.model import embedded_model

    run, _ = finished
    row = pyarrow.dataset.dataset(run / "rewrites", format="parquet").to_table().to_pylist()[0]
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    ids = torch.tensor([row["prompt_ids"] + row["response_ids"]])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits[0].float(), dim=-1)
    first = len(row["prompt_ids"])
    want = [logprobs[first - 1 + i, token].item() for i, token in enumerate(row["response_ids"])]
    assert row["policy_logprobs"] == pytest.approx(want, abs=0.01)


def test_vllm_answers_with_the_exported_model_as_transformers_does(finished):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from offsft.config.loading import load
    from offsft.prompts import load_prompts
    from offsft.records import Problem

    run, _ = finished
    answered = pyarrow.dataset.dataset(run / "evaluation" / "trained", format="parquet").to_table().to_pylist()[0]
    model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
    prompts = load_prompts(str(run / "model"), None, load(ROOT / SETTINGS[0], []).prompt, "auto")
    prompt = torch.tensor([prompts.plain(Problem("", answered["problem"], "", ""))])
    with torch.no_grad():
        ids = model.generate(prompt, max_new_tokens=48, do_sample=False)[0, prompt.shape[1] :]
    text = AutoTokenizer.from_pretrained(run / "model").decode(ids, skip_special_tokens=True)
    assert answered["samples"][0]["response"] == text


def test_the_screen_shows_progress_and_no_chatter(finished):
    run, done = finished
    assert "rewrite: 6 problems" in done.stdout
    assert "train: 2 steps" in done.stdout
    assert "report: " in done.stdout
    for noise in ("INFO", "WARNING", "Traceback", "EngineCore", "(pid="):
        assert noise not in done.stdout + done.stderr
    assert list((run / "logs").glob("engine-*.log"))
    assert (run / "logs" / "train-0.log").exists()


def test_the_report_is_there_and_the_run_can_be_repeated_at_once(finished):
    run, _ = finished
    assert (run / "report.html").stat().st_size > 20_000
    before = (run / "rewrite.json").read_text()
    again = job("pipeline", *SETTINGS, f"run={run}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "rewrite: already done" in again.stdout
    assert (run / "rewrite.json").read_text() == before


def test_another_experiment_does_not_get_into_the_folder(finished):
    run, _ = finished
    done = job("pipeline", *SETTINGS, f"run={run}", "rewrite.temperature=0.6")
    assert done.returncode == 1
    assert "rewrite.temperature is 0.6, but run/ was begun with 0.5" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("name", "setting"), [("rewrite", "data.path"), ("pipeline", "evaluate.path")])
def test_missing_input_is_one_clear_line_at_once(tmp_path, name, setting):
    done = job(name, "jobs/recipes/demo.yaml", f"run={tmp_path / 'r'}", f"{setting}={tmp_path / 'none.jsonl'}")
    assert done.returncode == 2
    assert f"{setting}={tmp_path / 'none.jsonl'} does not exist; give a JSONL or Parquet file" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "r").exists(), "nothing may be left"
