"""Paths in the folder that was submitted with a job, on nodes that each have their own copy of it."""

from pathlib import Path

import pytest

from offsft.demo import model as demo
from offsft.models import download_model
from offsft.storage.submitted import on_this_node

HEAD = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_0a1b2c3d"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """This node's copy of the submitted folder, in which its processes work."""
    here = tmp_path / "other" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a1b2c3d"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("below", ["", "/mymodel", "/a/b c/p.jsonl"])
def test_a_path_of_the_drivers_copy_leads_into_this_nodes(copy, below):
    assert on_this_node(HEAD + below) == f"{copy}{below}"


@pytest.mark.parametrize("path", ["/mnt/shared/model", "org/name", "s3://bucket/model", "/tmp/working_dir_files/x"])
def test_any_other_path_stays(copy, path):
    assert on_this_node(path) == path


def test_outside_of_a_submitted_job_every_path_stays():
    assert on_this_node(f"{HEAD}/mymodel") == f"{HEAD}/mymodel"


def test_a_model_that_was_submitted_is_loaded_from_this_nodes_copy(copy):
    assert download_model(f"{HEAD}/mymodel") == str(copy / "mymodel")


def test_the_embedded_model_of_another_home_is_unpacked_here(tmp_path, monkeypatch):
    here = tmp_path / "models" / f"{demo.NAME}-0a1b2c3d"
    monkeypatch.setattr(demo, "embedded_model", lambda: here)
    assert download_model(f"/home/head/.cache/offsft/models/{here.name}") == str(here)
    here.mkdir(parents=True)
    assert download_model(str(here)) == str(here)
    assert not Path(f"/home/head/.cache/offsft/models/{here.name}").exists()
