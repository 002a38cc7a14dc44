"""A whole comparison: real training of a tiny model, with a scripted sampler in the engines' place."""

import json
import re
import sys

import pytest
import ray

from offsft.compare.run import run_compare
from offsft.console import Console
from offsft.recipes import load
from offsft.sampling.scripted import ScriptedSampler

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class LoudConsole(Console):
    """Leaves the tests' own output where it is."""

    def quiet(self, log):
        pass


def script(prompt, number):
    """Right for every other problem, by the policy itself or with the solution in view."""
    found = int(re.findall(r"problem (\d+)", prompt)[-1])
    return f"It is \\boxed{{{found if found % 2 else found + 1}}}"


def sampler(prompts):
    return ScriptedSampler(script, encode=prompts.response, decode=prompts._tokenizer.decode)


def test_arms_are_trained_evaluated_and_put_into_a_table(tmp_path, tiny_model):
    problems = [{"problem": f"problem {i}", "solution": f"\\boxed{{{i}}}"} for i in range(12)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    recipe = load(
        None,
        [
            f"run={tmp_path / 'run'}",
            f"model.path={tiny_model}",
            "model.dtype=float32",
            f"data.path={tmp_path / 'p.jsonl'}",
            "rewrite.self_waves=[1]",
            "rewrite.guided_waves=[1]",
            "rewrite.max_tokens=40",
            "verify.timeout_s=20",
            f"evaluate.path={tmp_path / 'p.jsonl'}",
            "evaluate.max_tokens=40",
            "train.global_batch=4",
            "train.max_tokens=1000",
            "compare.seeds=[3]",
            "compare.arms=[{name: PSFT, responses: expert, objective: {kind: psft}},"
            " {name: rewriting+DFT, responses: kept, objective: {kind: dft}, source_weights: {expert: 0}}]",
        ],
    )
    run_compare(recipe, LoudConsole(), sampler_factory=sampler)
    rows = json.loads((tmp_path / "run" / "table.json").read_text())["rows"]
    assert [(row["name"], row["objective"], row["rewriting"]) for row in rows] == [
        ("Base", None, False),
        ("PSFT", "psft", False),
        ("rewriting+DFT", "dft", True),
    ]
    assert all(row["mean"] == 0.5 for row in rows), "the script solves every other problem"
    arm = tmp_path / "run" / "arms" / "PSFT-3"
    trained = json.loads((arm / "train.json").read_text())
    assert (trained["rows"], trained["responses"]) == (12, "expert")
    rewritten = json.loads((arm.with_name("rewriting+DFT-3") / "train.json").read_text())
    assert (rewritten["rows"], rewritten["left_out_rows"]) == (6, 6)
    lines = (arm / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert first["ratio/p50"] == pytest.approx(1, abs=0.011)
    assert first["weight/clipped_share"] == 0
    after = trained["gap"]["after"]["expert"]["all"]
    assert after["rows"] == 12
    assert after["mean_logprob"] != trained["gap"]["before"]["expert"]["all"]["mean_logprob"]
    assert not (arm / "checkpoints").exists()

    stamp = (arm / "train.json").stat().st_mtime_ns
    run_compare(recipe, LoudConsole(), sampler_factory=None)  # nothing is left to do, so no engine is needed
    assert (arm / "train.json").stat().st_mtime_ns == stamp
