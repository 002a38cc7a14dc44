"""A whole comparison, and a probe of objectives on its rewrites: real training of a tiny model, with a scripted sampler."""

import json
import re
import sys
from pathlib import Path

import pytest
import ray

from offsft.compare.run import run_compare
from offsft.config.loading import load
from offsft.config.objective import Dft, Sft
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.probe.run import run_probe
from offsft.runtime.console import Console

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.usefixtures("ray_session")]
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class LoudConsole(Console):
    """A console that does not redirect the tests' own output, and remembers its lines."""

    def __init__(self):
        super().__init__()
        self.said = []

    def quiet(self, log):
        pass

    def say(self, text):
        self.said.append(text)
        super().say(text)


def script(prompt, number):
    """An answer that is right for every other problem, by the policy itself or with the solution in view."""
    found = int(re.findall(r"problem (\d+)", prompt)[-1])
    return f"It is \\boxed{{{found if found % 2 else found + 1}}}"


def sampler(prompts):
    return ScriptedSampler(script, encode=prompts.response, decode=prompts.text)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_model, ray_session):
    """The recipe of a finished comparison."""
    folder = tmp_path_factory.mktemp("compared")
    problems = [{"problem": f"problem {i}", "solution": f"\\boxed{{{i}}}"} for i in range(12)]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    recipe = load(
        None,
        [
            f"run={folder / 'run'}",
            f"model.path={tiny_model}",
            "model.dtype=float32",
            f"data.path={folder / 'p.jsonl'}",
            "rewrite.stages.self.waves=[1]",
            "rewrite.stages.guided.waves=[1]",
            "rewrite.max_tokens=40",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
            f"evaluate.path={folder / 'p.jsonl'}",
            "evaluate.max_tokens=40",
            "train.global_batch=4",
            "train.max_tokens=1000",
            "compare.seeds=[3]",
            "compare.learning_rates=[1e-5,2e-5]",
            "compare.validation_problems=2",
            "compare.arms=[{name: PSFT, responses: expert, objective: {kind: psft}},"
            " {name: rewriting+DFT, responses: kept, objective: {kind: dft}, source_weights: {expert: 0}}]",
        ],
    )
    run_compare(recipe, LoudConsole(), sampler_factory=sampler)
    return recipe


def test_arms_are_trained_evaluated_and_put_into_a_table(compared):
    run = Path(compared.run)
    rows = json.loads((run / "table.json").read_text())["rows"]
    assert [(row["name"], row["objective"], row["rewriting"]) for row in rows] == [
        ("Base", None, False),
        ("PSFT", "psft", False),
        ("rewriting+DFT", "dft", True),
    ]
    assert all((row["mean"], row["problems"]) == (0.5, 10) for row in rows), "the script solves every other problem"
    assert all(row["learning_rate"] == 1e-5 for row in rows[1:]), "of equal ones the lowest"
    assert [[entry["learning_rate"] for entry in row["grid"]] for row in rows[1:]] == [[1e-5, 2e-5]] * 2
    assert all(row["kl"] is not None for row in rows[1:])
    arm = run / "arms" / "PSFT-3-1e-05"
    assert (arm.with_name("PSFT-3-2e-05") / "train.json").exists()
    assert not (arm.with_name("PSFT-3-2e-05") / "evaluate.json").exists(), "it was not chosen"
    trained = json.loads((arm / "train.json").read_text())
    assert (trained["rows"], trained["responses"]) == (12, "expert")
    rewritten = json.loads((arm.with_name("rewriting+DFT-3-1e-05") / "train.json").read_text())
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
    run_compare(compared, LoudConsole(), sampler_factory=None)  # nothing to do, so no engine is needed
    assert (arm / "train.json").stat().st_mtime_ns == stamp


def test_a_probe_trains_each_objective_on_the_rewrites_once_and_keeps_no_model(compared):
    probe = compared.probe.model_copy(update={"steps": 2, "objectives": [Sft(), Dft()]})
    recipe = compared.model_copy(update={"probe": probe})
    first, second = LoudConsole(), LoudConsole()
    run_probe(recipe, first)
    assert "probe: sft (1 of 2)" in first.said
    run = Path(recipe.run)
    found = json.loads((run / "probe.json").read_text())
    assert (found["train_rows"], found["held_out_rows"], found["steps"]) == (8, 4, 2)
    assert (found["verdict"], found["setting"]) == ("too_few", "train.objective.kind=dft"), "the recipe's own is kept"
    sft, dft = found["objectives"]
    for each in (sft, dft):
        assert [text["rows"] for name, text in each["texts"].items() if name != "own"] == [4, 4]
        assert each["texts"]["trained"]["after"] != each["texts"]["trained"]["before"]
        assert [step for step, _ in each["held_out"]] == [0, 1, 2]
        assert each["grad_norm"] > 0
    assert sft["nll"][0] == pytest.approx(dft["nll"][0], rel=1e-3), "the same first batch from the same start"
    assert (sft["mean_weight"], sft["ess_share"]) == (1, 1)
    assert 0 < dft["mean_weight"] < 1
    assert dft["weights"]["signal_share"] < 1
    assert not list(run.glob("probe/*/*/model")) + list(run.glob("probe/*/*/checkpoints"))

    run_probe(recipe, second)
    assert json.loads((run / "probe.json").read_text()) == found
    assert "probe: sft (1 of 2)" not in second.said, "what was trained is not trained again"
