"""The stages of a run: each done once, marked done last, and in its own folder."""

import sys
from types import SimpleNamespace

import pytest

from offsft.config.loading import load
from offsft.errors import RunFolderError
from offsft.pipeline.stages import StageContext, evaluate, is_finished, rewrite, train
from offsft.storage.run_folder import RunFolder

REWRITTEN = {"problems": 3, "sources": {"self": 2, "guided": 0, "expert": 1}, "generated_tokens": 9, "seconds": 1.0}
TRAINED = {"steps": 2, "tokens": 9, "final_loss": 0.5, "seconds": 1.0}


class Lines:
    """A console that keeps its lines."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def stage_modules(monkeypatch):
    """Replace the modules that do the work with fakes; returns the called stages, in order."""
    called = []

    def fake(stage, result):
        def work(recipe, folder, *_, **__):
            called.append(stage)
            return result

        return work

    def put(module, **functions):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**functions))

    def run_evaluate(recipe, folder, models, console, **_):
        called.append("evaluate")
        scores = {name: {"accuracy": 0.5} for name in models}
        return {"problems": 3, "suites": ["held_out"], "models": list(models), "seconds": 1.0} | scores

    put("offsft.rewrite.run", run_rewrite=fake("rewrite", REWRITTEN))
    put("offsft.train.run", train=fake("train", TRAINED))
    put("offsft.evaluate.run", run_evaluate=run_evaluate)
    put("offsft.report.evaluation_page", write_evaluation_page=lambda run: called.append("page"))
    return called


def context(path, rewrites=None):
    recipe = load(None, [f"run={path}"])
    folder = RunFolder(str(path), rewrites=rewrites)
    folder.open(recipe)
    return StageContext(recipe, folder, "some/model", Lines())


def test_each_stage_runs_once_and_says_what_came_out(tmp_path, stage_modules):
    run = context(tmp_path / "r")
    for _ in range(2):
        rewrite(run)
        train(run)
        evaluate(run)
    assert stage_modules == ["rewrite", "train", "evaluate", "page"]
    assert [line.split(":")[0] for line in run.console.said] == ["rewrite", "train", "evaluate"]
    assert all(is_finished(run.recipe, run.folder, stage) for stage in ("rewrite", "train", "evaluate"))


def test_a_stage_that_fails_is_not_marked_as_finished(tmp_path, stage_modules, monkeypatch):
    def broken(*_, **__):
        raise RunFolderError("broken")

    run = context(tmp_path / "r")
    monkeypatch.setattr(sys.modules["offsft.report.evaluation_page"], "write_evaluation_page", broken)
    with pytest.raises(RunFolderError, match="broken"):
        evaluate(run)
    assert not is_finished(run.recipe, run.folder, "evaluate")


def test_training_needs_finished_rewrites(tmp_path, stage_modules):
    with pytest.raises(RunFolderError, match=r"holds no finished rewrites; run jobs\.rewrite"):
        train(context(tmp_path / "r"))


def test_an_arm_trains_on_the_rewrites_of_the_run_above_it(tmp_path, stage_modules):
    run = context(tmp_path / "r")
    arm = context(tmp_path / "r" / "arms" / "a-0", run.folder.rewrites)
    with pytest.raises(RunFolderError, match="no finished rewrites"):
        train(arm)
    rewrite(run)
    train(arm)
    assert (arm.folder.result("train"), run.folder.result("train")) == (TRAINED, None)


def test_an_evaluation_goes_on_where_a_model_was_added(tmp_path, stage_modules):
    run = context(tmp_path / "r")
    evaluate(run)
    run.folder.model.mkdir()
    assert not is_finished(run.recipe, run.folder, "evaluate"), "the trained model is there now"
    evaluate(run)
    assert run.folder.result("evaluate")["models"] == ["base", "trained"]
    evaluate(run, {"trained": str(run.folder.model)})
    assert run.folder.result("evaluate")["models"] == ["trained"]
