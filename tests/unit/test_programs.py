"""Tests skipped for a missing program are listed in one table, with the command that installs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
import pytest
from tests import programs
from tests.programs import *
programs.INSTALL |= {"no-such-program": "apt-get install no-such", "nor-this": "apt-get install nor-this"}
programs._IN_CI.add("nor-this")
"""
TESTS = """
import pytest
from tests.programs import require

@pytest.fixture
def opened():
    require("nor-this")

@pytest.mark.needs("no-such-program")
@pytest.mark.parametrize("number", range(3))
def test_marked(number):
    raise AssertionError

def test_by_a_fixture(opened):
    raise AssertionError

@pytest.mark.needs("python3")
def test_what_is_there_runs():
    pass

def test_other_reasons_are_not_in_the_table():
    pytest.skip("it rains")
"""


def suite(folder, *options, **more):
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_some.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs: programs\n")
    others = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)]
    environment = others | {"PYTHONPATH": str(ROOT), **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250).stdout


@pytest.mark.parametrize("options", [(), ("-n2",)], ids=["one process", "two processes"])
def test_the_table_has_program_number_and_remedy(tmp_path, options):
    printed = suite(tmp_path, *options)
    assert "1 passed, 5 skipped" in printed
    lines = list(filter(None, printed.splitlines()))
    title = next(number for number, line in enumerate(lines) if "skipped for want of a program" in line)
    assert [line.split(maxsplit=2) for line in lines[title + 1 : title + 4]] == [
        ["program", "tests", "to have it"],
        ["no-such-program", "3", "apt-get install no-such"],
        ["nor-this", "1", "apt-get install nor-this"],
    ]


def test_ci_fails_without_its_browser(tmp_path):
    printed = suite(tmp_path, CI="1")
    assert "1 passed, 4 skipped, 1 error" in printed
    assert "needs the program nor-this, which is not installed (apt-get install nor-this)" in printed
