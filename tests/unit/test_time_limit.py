"""A hanging test fails with the stacks of itself and its processes, and the tests after it run."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
import pytest_timeout
from tests import time_limit
from tests.time_limit import *
time_limit.GRACE_S, time_limit.TEARDOWN_S = 1, 3
"""
HEAD = "import signal, subprocess, sys, threading, time, pytest\nhangs = pytest.mark.timeout(1)\n"
CHILD = "import threading, time\ndef sleeps_in_the_child(): time.sleep(600)\nthreading.Thread(target=sleeps_in_the_child).start()\nprint('ready', flush=True)\n"


def suite(folder, tests, *options):
    """Run `tests` and one more test, which passes; returns exit status and output. `hangs` is a limit of one second."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "child.py").write_text(CHILD)
    body = textwrap.dedent(tests) + "\ndef test_next():\n    pass\n"
    (folder / "test_hung.py").write_text(f"{HEAD}{body}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
    )
    return done.returncode, done.stdout + done.stderr


def left(folder):
    """The surviving processes of the hung suite."""
    return [p for p in psutil.process_iter(["cmdline"]) if str(folder / "child.py") in (p.info["cmdline"] or [])]


@pytest.mark.parametrize("stderr", ["subprocess.PIPE", "open('log', 'w')"])
def test_the_stacks_of_its_threads_and_of_its_processes_are_in_the_failure(tmp_path, stderr):
    status, printed = suite(
        tmp_path,
        f"""
        def sleeps_in_a_thread():
            time.sleep(600)

        @pytest.fixture(scope="module")
        def child():
            command = [sys.executable, "{tmp_path}/child.py"]
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr={stderr})

        def test_the_child_is_at_it(child):
            assert child.stdout.readline()

        @hangs
        def test_hung(child):
            threading.Thread(target=sleeps_in_a_thread, daemon=True).start()
            waits_for_the_child(child)

        def waits_for_the_child(child):
            child.communicate()
        """,
    )
    assert status == 1
    assert "1 failed, 2 passed" in printed
    assert "this took more than 1 s" in printed
    for function in ("waits_for_the_child", "sleeps_in_a_thread", "sleeps_in_the_child"):
        assert f"in {function}" in printed or f"{function}(" in printed, printed
    assert not left(tmp_path)


def test_a_fixture_that_hangs_is_an_error_of_its_test(tmp_path):
    status, printed = suite(
        tmp_path,
        """
        @pytest.fixture
        def begins():
            time.sleep(600)

        @pytest.fixture
        def ends():
            yield
            time.sleep(600)

        @hangs
        def test_begun(begins):
            pass

        @pytest.mark.timeout(60)
        def test_ended(ends):
            raise ValueError("and its fixture hangs too")
        """,
    )
    assert status == 1
    assert "1 failed, 1 passed, 2 errors" in printed
    assert "this took more than 1 s" in printed
    assert "this took more than 3 s" in printed


def test_a_main_thread_that_hears_no_signal_ends_its_process_and_the_suite_goes_on(tmp_path):
    status, printed = suite(
        tmp_path,
        f"""
        @hangs
        def test_deaf():
            subprocess.Popen([sys.executable, "{tmp_path}/child.py"], start_new_session=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(600)
        """,
        "-n1",
    )
    assert status == 1
    assert "1 failed, 1 passed" in printed
    assert "crashed while running 'test_hung.py::test_deaf'" in printed
    assert "in test_deaf" in printed
    assert not left(tmp_path)


def test_a_test_that_ends_in_time_leaves_no_alarm(tmp_path):
    status, printed = suite(
        tmp_path,
        """
        @pytest.mark.timeout(60)
        def test_limited():
            assert signal.getitimer(signal.ITIMER_REAL)[0] > 0

        @pytest.mark.timeout(0)
        def test_without_a_limit():
            assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        """,
    )
    assert status == 0, printed
    assert "3 passed" in printed
