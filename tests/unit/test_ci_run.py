"""The CI script gives the set-up and the tests a separate home and caches, and removes them afterwards."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "run"
CACHES = ("HOME", "XDG_CACHE_HOME", "OFFSFT_HOME", "TORCH_EXTENSIONS_DIR", "VLLM_CACHE_ROOT", "HF_HOME")
INSTALLED = ("chromium", "chromedriver", "bwrap", "prometheus")


@pytest.fixture
def checkout(tmp_path):
    """A checkout on a warm machine, with a `make` that records its environment and the files in its home."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / ".ci" / "run")
    (tmp_path / "bin").mkdir()
    (tmp_path / "home" / ".cache" / "torch_extensions").mkdir(parents=True)
    make = f'env >{tmp_path}/$1.env; ls -A "$HOME" >{tmp_path}/$1.home; touch "$HOME/left-by-$1"; [ "$1" != "$FAILS" ]'
    for name in (*INSTALLED, "make"):
        program = tmp_path / "bin" / name
        program.write_text(f"#!/usr/bin/env bash\n{make if name == 'make' else ''}\n")
        program.chmod(0o755)
    return folder


def run(checkout, **more):
    """Run the script; returns the exit status, and the environment of each `make`."""
    home = checkout.parent / "home"
    environment = {"PATH": f"{checkout.parent / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(home), **more}
    script = checkout / ".ci" / "run"
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60)
    seen = {}
    for path in checkout.parent.glob("*.env"):
        seen[path.stem] = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return done.returncode, seen


def test_the_tests_find_what_the_set_up_left_and_nothing_of_the_machine(checkout):
    warm = {name: str(checkout.parent / "warm") for name in CACHES if name != "HOME"}
    status, seen = run(checkout, **warm)
    assert status == 0
    assert set(seen) == {"setup", "lint", "types", "test"}
    assert {name: seen["setup"][name] for name in CACHES} == {name: seen["test"][name] for name in CACHES}
    assert not {seen["test"][name] for name in CACHES} & {*warm.values(), str(checkout.parent / "home")}
    assert (checkout.parent / "setup.home").read_text() == ""
    assert (checkout.parent / "test.home").read_text() == "left-by-setup\n"
    assert not Path(seen["test"]["HOME"]).exists(), "nothing is left behind"


def test_pip_keeps_its_downloads_and_its_settings(checkout):
    home = checkout.parent / "home"
    (home / ".config" / "pip").mkdir(parents=True)
    (home / ".config" / "pip" / "pip.conf").touch()
    _, seen = run(checkout)
    assert seen["setup"]["PIP_CACHE_DIR"] == str(home / ".cache" / "pip")
    assert seen["setup"]["PIP_CONFIG_FILE"] == str(home / ".config" / "pip" / "pip.conf")


@pytest.mark.parametrize("step", ["setup", "lint", "types", "test"])
def test_a_step_that_fails_fails_the_run_and_leaves_no_folder(checkout, step):
    status, seen = run(checkout, FAILS=step)
    assert status != 0
    assert ("test" in seen) is (step == "test")
    assert not Path(seen["setup"]["HOME"]).exists()
