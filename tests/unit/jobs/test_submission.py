"""The run of a submitted job outlives the job, or the job is refused."""

import shutil
import zipfile
from pathlib import Path

import pytest

from jobs.submission import with_lasting_run
from offsft.config.loading import load
from offsft.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def submitted(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.delenv("OFFSFT_STORAGE", raising=False)


def run_of(*settings):
    return with_lasting_run(load(None, list(settings))).run


def test_a_relative_run_without_storage_is_refused():
    with pytest.raises(ConfigError, match=r"run=runs/a is relative: .* cluster\.storage"):
        run_of("run=runs/a")


def test_a_relative_run_lies_in_the_storage_that_the_recipe_or_the_node_names(tmp_path, monkeypatch):
    assert run_of("run=runs/a", f"cluster.storage={tmp_path}") == f"{tmp_path}/runs/a"
    monkeypatch.setenv("OFFSFT_STORAGE", str(tmp_path))
    assert run_of("run=runs/a") == f"{tmp_path}/runs/a"
    assert run_of("run=runs/a", "cluster.storage=s3://bucket/x/") == "s3://bucket/x/runs/a"
    with pytest.raises(ConfigError, match="is not a folder on this node"):
        run_of("run=runs/a", f"cluster.storage={tmp_path}/gone")


@pytest.mark.parametrize("run", ["/mnt/shared/a", "s3://bucket/a"])
def test_a_place_of_its_own_is_kept(run):
    assert run_of(f"run={run}") == run


def test_a_command_that_was_not_submitted_runs_where_it_was_typed(monkeypatch):
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert run_of("run=runs/a") == "runs/a"


def test_what_is_uploaded_with_a_job_is_the_code_and_no_more(tmp_path):
    """Uses Ray's own packing on a checkout that contains an environment, runs, a history and a cluster's token."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "checkout"
    for name in (".git/config", ".venv/bin/python", "runs/a/model/w", ".cluster/token", ".cluster-token/auth_token"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name in ("offsft", "jobs", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, folder / name)
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    names = set(zipfile.ZipFile(package).namelist())
    assert {"offsft/rewrite/cascade.py", "jobs/pipeline.py", "jobs/recipes/demo.yaml"} <= names
    assert {name.split("/")[0] for name in names} == {"offsft", "jobs", ".gitignore", ".rayignore"}
    assert not any("__pycache__" in name for name in names)
