"""What a node must see before a job is given to it, and what is said of one that does not."""

import pytest

from offsft.errors import ModelError, RunFolderError
from offsft.models import fingerprint
from offsft.runtime.nodes import Sight, check_sights, look_around

SHARED = "give it on storage that every node has mounted, or as s3://bucket/path"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_node_that_sees_the_run_leaves_its_mark_there_and_knows_the_model(tmp_path, model):
    (tmp_path / "driver").write_text("driver")
    sight = look_around(str(tmp_path), "driver", "other", {"model.path": str(model)})
    assert sight == Sight(True, "", {"model.path": fingerprint(str(model))})
    assert (tmp_path / "other").exists()


def test_a_node_with_another_disk_makes_no_folder_of_its_own(tmp_path):
    there = tmp_path / "runs" / "mine" / ".nodes"
    sight = look_around(str(there), "driver", "other", {"model.path": str(tmp_path / "model")})
    assert sight == Sight(False, "", {"model.path": None})
    assert not list(tmp_path.iterdir())


def test_a_node_that_cannot_write_says_why(tmp_path):
    (tmp_path / "driver").write_text("driver")
    (tmp_path / "other").mkdir()
    sight = look_around(str(tmp_path), "driver", "other", {})
    assert sight.sees_run
    assert "Is a directory" in sight.refused


def test_the_nodes_that_do_not_see_the_run_are_named_with_what_to_do(tmp_path):
    sights = {"b (two)": Sight(False, "", {}), "a (one)": Sight(False, "", {}), "c (three)": Sight(True, "", {})}
    with pytest.raises(RunFolderError) as error:
        check_sights(tmp_path, {}, sights)
    assert str(error.value) == (
        f"run={tmp_path} is not seen on the nodes a (one), b (two), which may get work; {SHARED} (run=..., or"
        " cluster.storage for all runs)"
    )


def test_a_node_that_may_not_write_is_named_with_its_reason(tmp_path):
    with pytest.raises(
        RunFolderError, match=r"cannot be read and written on the node b \(two\).*: Read-only file system"
    ):
        check_sights(tmp_path, {}, {"b (two)": Sight(True, "Read-only file system", {})})


def test_a_missing_model_and_another_one_are_named(tmp_path):
    models = {"model.path": ("/m", "0a")}
    with pytest.raises(
        ModelError, match=r"model.path=/m is not there on the node b, .*or put it into the folder that you"
    ):
        check_sights(
            tmp_path, models, {"a": Sight(True, "", {"model.path": "0a"}), "b": Sight(True, "", {"model.path": None})}
        )
    with pytest.raises(ModelError, match=r"model\.path=/m holds other files on the node b than here"):
        check_sights(tmp_path, models, {"b": Sight(True, "", {"model.path": "1b"})})
    check_sights(tmp_path, models, {"b": Sight(True, "", {"model.path": "0a"})})


def test_of_many_nodes_five_are_named(tmp_path):
    with pytest.raises(RunFolderError, match="the nodes n0, n1, n2, n3, n4 and 3 more, which"):
        check_sights(tmp_path, {}, {f"n{i}": Sight(False, "", {}) for i in range(8)})
