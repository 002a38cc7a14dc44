"""The wheel, installed into a fresh environment that sees this one's packages but nothing of this repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
SOURCES = ["offsft", "jobs", "services", "pyproject.toml", "setup.py", "README.md", "LICENSE"]
CODE = {"offsft": "offsft", "jobs": "offsft/jobs", "services": "offsft/services"}
"""Folders of the repository, and their places in the wheel."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)
    command = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder / "dist"), str(folder)]
    run(sys.executable, "-m", "pip", *command)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of commands of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(*command, status=0, **more):
    """The whole output of a command, which must exit with `status`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **more)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_claims_one_name_and_one_command(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    (information,) = {name.split("/")[0] for name in names} - {"offsft"}
    assert information.endswith(".dist-info")
    commands = zipfile.ZipFile(wheel).read(f"{information}/entry_points.txt").decode()
    assert commands.split() == ["[console_scripts]", "offsft", "=", "offsft.jobs.__main__:main"]


def test_the_wheel_has_every_file_of_the_code(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in CODE.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        missing = {f"{place}/{path.relative_to(ROOT / folder)}" for path in files} - names
        assert not missing


def test_what_is_installed_answers_from_any_folder(installed, tmp_path):
    offsft = str(installed / "offsft")
    assert "rewrite" in run(offsft, "--help", cwd=tmp_path)
    assert run(offsft, "--version", cwd=tmp_path).startswith("offsft ")
    assert run(offsft, "rewrite", "--help", cwd=tmp_path).startswith("offsft rewrite RECIPE.yaml")
    assert "7.62 billion parameters" in run(offsft, "plan", "qwen2.5-math-7b", cwd=tmp_path)


def test_wrong_settings_are_refused_as_in_a_clone(installed, tmp_path):
    said = run(str(installed / "offsft"), "rewrite", "demo", "train.zero_stages=3", cwd=tmp_path, status=2)
    assert said.startswith("error: train.zero_stages=3: there is no such setting")
    assert len(said.splitlines()) == 1


def test_a_job_finds_modules_in_the_current_folder(installed, tmp_path):
    (tmp_path / "mine.py").write_text("")
    code = (
        "import importlib.util, sys\n"
        "sys.argv = ['offsft', 'plan', 'qwen2.5-math-7b']\n"
        "sys.path.remove('')\n"
        "from offsft.jobs.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert importlib.util.find_spec('mine')\n"
    )
    run(str(installed / "python"), "-c", code, cwd=tmp_path)


def test_the_general_names_stay_free_and_serve_finds_the_installed_ones(installed, tmp_path):
    code = """
import importlib, importlib.util
for name in ("jobs", "services", "cluster"):
    assert importlib.util.find_spec(name) is None, name
from pathlib import Path
import offsft
from offsft.services.deploy import read_config
from offsft.services.settings import recipe_at
config = read_config(Path(offsft.__file__).with_name("services") / "local.yaml")
for app in config["applications"]:
    module, name = app["import_path"].split(":")
    assert module.startswith("offsft.services."), module
    assert callable(getattr(importlib.import_module(module), name))
    assert recipe_at(app["args"]["recipe"]).run == "runs/demo"
import os
from offsft.services import ingress
assert os.access(Path(ingress.__file__).with_name("haproxy.sh"), os.X_OK)
print("ok")
"""
    assert run(str(installed / "python"), "-c", code, cwd=tmp_path).strip().endswith("ok")
