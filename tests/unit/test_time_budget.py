"""Tests marked `last` run last; once the budget for all tests is spent they are left out, and listed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import time

import pytest

@pytest.mark.last
def test_long():
    pass

def test_short():
    time.sleep(0.2)
"""


def suite(folder, *options, **more):
    (folder / "conftest.py").write_text("from tests.time_budget import *\n")
    (folder / "test_some.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = last: long\n")
    others = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "OFFSFT_TEST"))}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *options, str(folder)]
    environment = others | {"PYTHONPATH": str(ROOT), **more}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250).stdout


def test_without_a_budget_the_long_ones_run_last(tmp_path):
    printed = suite(tmp_path)
    assert "2 passed" in printed
    assert printed.index("test_short PASSED") < printed.index("test_long PASSED")


@pytest.mark.parametrize("options", [(), ("-n2",)], ids=["one process", "two processes"])
def test_what_a_spent_budget_leaves_out_is_listed(tmp_path, options):
    printed = suite(tmp_path, *options, OFFSFT_TEST_BUDGET_S="0.1")
    assert "1 passed, 1 skipped" in printed
    assert "left out, since OFFSFT_TEST_BUDGET_S=0.1 was spent" in printed
    assert "pytest test_some.py::test_long" in printed


def test_a_budget_that_lasts_leaves_nothing_out(tmp_path):
    assert "2 passed" in suite(tmp_path, OFFSFT_TEST_BUDGET_S="600")
