"""Checks before a run starts or continues: its input, and whether that has changed."""

import json
import os

import pytest

from offsft.config.loading import load
from offsft.data.intake_record import IntakeRecord, read_record, stamp_files, write_record
from offsft.errors import ConfigError, RunFolderError
from offsft.models import fingerprint
from offsft.pipeline.checks import check_input, settle_changes
from offsft.pipeline.run import run_stages
from offsft.storage.run_folder import RunFolder
from offsft.verify import ifeval


class Lines:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"problem": name}) + "\n")
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


@pytest.fixture
def recipe(tmp_path, data, model):
    return load(None, [f"run={tmp_path / 'r'}", f"data.path={data}", f"evaluate.path={data}", f"model.path={model}"])


@pytest.fixture
def begun(recipe):
    """A run that has read its problems and finished its rewriting."""
    folder = RunFolder(recipe.run)
    folder.open(recipe)
    folder.problems.mkdir()
    files = stamp_files(recipe.data, "data.path")
    write_record(folder.path, "data", IntakeRecord(files, fingerprint(recipe.model.path)))
    folder.finish("rewrite", {})
    return folder


def changed(recipe, **settings):
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=settings)})


def test_a_run_whose_files_are_what_they_were_goes_on(recipe, begun, data):
    console = Lines()
    settle_changes(recipe, begun, console)
    os.utime(data / "a.jsonl")  # written again with the same content
    (data / "a.jsonl").rename(data / "c.jsonl")
    settle_changes(recipe, begun, console)
    assert console.said == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "a.jsonl").write_text('{"problem": "x"}\n'), r"a\.jsonl changed, since r/ took"),
        (lambda data: (data / "c.jsonl").write_text('{"problem": "c"}\n'), r"c\.jsonl is new, since"),
        (lambda data: (data / "b.jsonl").unlink(), r"b\.jsonl is not there any more, since"),
        (
            lambda data: [(data / f"{n}.jsonl").write_text(f"{n}\n") for n in "ab"],
            r"a\.jsonl changed, and 1 more, since",
        ),
    ],
)
def test_a_changed_file_is_refused_with_what_to_do(recipe, begun, data, change, message):
    change(data)
    with pytest.raises(RunFolderError, match=rf"{message}.*run=\.\.\..*data\.on_change=add"):
        settle_changes(recipe, begun, Lines())


def test_a_change_that_keeps_length_and_time_is_seen(recipe, begun, data):
    path = data / "a.jsonl"
    before = path.stat()
    path.write_text(path.read_text().replace('"a"', '"x"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(RunFolderError, match=r"a\.jsonl changed"):
        settle_changes(recipe, begun, Lines())


def test_new_problems_are_taken_in_where_the_recipe_says_so(recipe, begun, data):
    with (data / "a.jsonl").open("a") as file:
        file.write('{"problem": "new"}\n')
    settle_changes(changed(recipe, on_change="add"), begun, Lines())
    assert begun.result("rewrite") is None, "the rewriting has something to do"


@pytest.mark.parametrize("trained", ["checkpoints", "arms"])
def test_nothing_is_added_to_what_is_trained_on(recipe, begun, data, trained):
    (begun.path / trained).mkdir()
    (data / "a.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match="the training on what was taken in has begun"):
        settle_changes(changed(recipe, on_change="add"), begun, Lines())
    assert begun.result("rewrite") == {}


def test_data_that_is_gone_does_not_end_a_run_that_holds_its_problems(recipe, begun, data):
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    console = Lines()
    settle_changes(recipe, begun, console)
    assert "does not exist" in console.said[0]
    assert "goes on with the problems that it took in" in console.said[0]


def test_other_weights_in_the_models_folder_are_refused(recipe, begun, model):
    (model / "model.safetensors").write_bytes((3).to_bytes(8, "little") + b"{} ")
    with pytest.raises(RunFolderError, match=r"model\.path=.* holds other files than when r/ was begun"):
        settle_changes(recipe, begun, Lines())


def test_changed_held_out_problems_are_refused(recipe, begun, data):
    (begun.evaluation / "problems").mkdir(parents=True)
    write_record(begun.path, "evaluate", IntakeRecord(stamp_files(recipe.evaluate, "evaluate.path")))
    elsewhere = changed(recipe, path="generated")
    settle_changes(elsewhere, begun, Lines())
    (data / "b.jsonl").write_text("{}\n")
    with pytest.raises(RunFolderError, match=r"b\.jsonl changed.*to evaluate on what is there now, delete evaluation/"):
        settle_changes(elsewhere, begun, Lines())


def test_a_run_from_before_there_were_records_goes_on(recipe, begun, data):
    (begun.path / "intake.json").unlink()
    (data / "a.jsonl").write_text("{}\n")
    settle_changes(recipe, begun, Lines())
    assert read_record(begun.path, "data") is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.path={}/none.jsonl", "does not exist; give a JSONL or Parquet file, a folder of them, or a pattern"),
        ("data.path={}/none*.jsonl", "no file matches this pattern"),
        ("data.path=[{}/none*.jsonl, {}]", "no file matches this pattern"),
        ("evaluate.path={}/none.jsonl", "does not exist"),
        ("model.path={}/none", "does not exist"),
        ("evaluate.models=[x={}/none]", "does not exist"),
    ],
)
def test_input_that_is_not_there_is_a_wrong_setting_and_leaves_nothing(tmp_path, data, setting, message):
    recipe = load(None, [f"run={tmp_path / 'r'}", setting.format(data, data)])
    with pytest.raises(ConfigError, match=message):
        run_stages(recipe, ("rewrite", "train", "evaluate"), Lines())
    assert not (tmp_path / "r").exists()


def test_what_a_suites_own_verifier_lacks_ends_the_job_before_anything_starts(tmp_path, model, monkeypatch):
    monkeypatch.setattr(ifeval.importlib.util, "find_spec", lambda name: None)
    settings = [f"run={tmp_path / 'r'}", f"model.path={model}", f"evaluate.suite_folder={tmp_path}"]
    for key in ("suites", "retention"):
        recipe = load(None, [*settings, f"evaluate.{key}=[ifeval]"])
        with pytest.raises(ConfigError, match="ifeval needs the package if-verifiable"):
            check_input(recipe, RunFolder(recipe.run), ("evaluate",))
    assert not (tmp_path / "r").exists()


def test_a_pattern_and_the_home_folder_stand_for_files(tmp_path, data, model, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load(None, ["run=~/r", "data.path=~/data/*.jsonl", "evaluate.models=[x=~/model]", "model.path=~/model"])
    assert recipe.run == str(tmp_path / "r")
    files = [stamp.file for stamp in stamp_files(recipe.data, "data.path")]
    assert files == [str(data / "a.jsonl"), str(data / "b.jsonl")]
    check_input(recipe, RunFolder(recipe.run), ("evaluate",))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path, data):
    (data / "[a].jsonl").write_text("{}\n")
    recipe = load(None, [f"run={tmp_path / 'r'}", f"data.path='{data}/[a].jsonl'"])
    assert [stamp.file for stamp in stamp_files(recipe.data, "data.path")] == [str(data / "[a].jsonl")]
