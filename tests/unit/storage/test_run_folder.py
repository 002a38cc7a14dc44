"""A run's folder: which settings may change between two commands, and which may not."""

import pytest

from offsft.config.loading import load
from offsft.errors import RunFolderError
from offsft.storage.paths import write_text_atomically
from offsft.storage.run_folder import RunFolder


def opened(path, *overrides):
    folder = RunFolder(str(path))
    folder.open(load(None, [f"run={path}", *overrides]))
    return folder


def test_settings_of_a_begun_stage_are_held(tmp_path):
    folder = opened(tmp_path / "r")
    folder.problems.mkdir()
    with pytest.raises(RunFolderError, match=r"rewrite\.temperature is 0\.7, but r/ was begun with 1\.0"):
        opened(tmp_path / "r", "rewrite.temperature=0.7")
    with pytest.raises(RunFolderError, match=r"prompt\.plain is"):
        opened(tmp_path / "r", "prompt.plain='{problem}!'")


def test_a_setting_that_the_run_was_begun_without_is_told_so(tmp_path):
    folder = opened(tmp_path / "r")
    folder.problems.mkdir()
    kept = folder.path / "config.resolved.yaml"
    kept.write_text("".join(line for line in kept.read_text().splitlines(True) if "temperature" not in line))
    with pytest.raises(RunFolderError, match=r"temperature is 1\.0, but r/ was begun without it; give this experiment"):
        opened(tmp_path / "r")


def test_settings_of_a_stage_not_begun_may_change(tmp_path):
    folder = opened(tmp_path / "r")
    folder.problems.mkdir()
    opened(tmp_path / "r", "train.learning_rate=1e-3", "evaluate.limit=7")
    folder.checkpoints.mkdir()
    with pytest.raises(
        RunFolderError, match=r"train\.workers is 2, but .* begun with 1; .* delete checkpoints/, .* of /"
    ):
        opened(tmp_path / "r", "train.workers=2", "train.learning_rate=1e-3", "evaluate.limit=7")


def test_settings_that_do_not_matter_may_change(tmp_path):
    folder = opened(tmp_path / "r")
    folder.problems.mkdir()
    opened(tmp_path / "r", "engine.actors=4", "rewrite.commit_problems=99", "verify.timeout_s=9")


def test_the_recipe_and_the_results_are_kept(tmp_path):
    folder = opened(tmp_path / "r", "seed=5")
    assert load(tmp_path / "r" / "config.resolved.yaml", []).seed == 5
    assert folder.result("rewrite") is None
    folder.finish("rewrite", {"problems": 3})
    assert RunFolder(str(tmp_path / "r")).result("rewrite") == {"problems": 3}


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="the folder cannot be written"):
        opened(tmp_path / "file" / "r")


def test_a_replaced_file_is_never_half_there(tmp_path):
    path = tmp_path / "a.json"
    write_text_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "new \ud800")
    assert path.read_text() == "old"
