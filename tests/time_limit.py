"""Time limits: a test that takes too long fails with the stacks of all threads, also of the processes it started.

pytest-timeout sets the limit (`timeout` in pyproject.toml, and `limits` below); this module acts on it. The main thread
gets a signal, whose handler gathers the stacks and fails the test. If the main thread does not reach its handler, or
hangs again in a fixture's teardown, this process is ended. pytest-xdist reports that as a failure of the test, and
continues with another process.

A Python process prints its stacks when it is aborted, since PYTHONFAULTHANDLER is set for all of them. Ray's own
services are left alone: a Ray session that other tests share survives the loss of its workers, but not of its agents.
"""

import faulthandler
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import pytest_timeout
from _pytest.faulthandler import fault_handler_stderr_fd_key

FAST_S = 300
"""Limit of a test that needs neither Ray nor an engine."""
TEARDOWN_S = 300
"""Limit of the teardown of a test's fixtures, also after a failure."""
GRACE_S = 60
"""Time past its limit after which a test that has not failed yet ends its process."""
_ABORT_S = 10
_MOST_BYTES = 20_000
"""Bytes kept of one process's output, from its end, where the stacks are."""
_RAYS_OWN = ("ray/dashboard/", "ray/autoscaler/", "log_monitor.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
_IDLE = ("ray::IDLE", "multiprocessing.resource_tracker")

os.environ["PYTHONFAULTHANDLER"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"unit", "numerics"} & set(item.path.parts) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FAST_S))


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool:
    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()

    item.cancel_timeout = cancel  # pyright: ignore[reportAttributeAccessIssue]: pytest-timeout looks for it there
    _limit(item, settings.timeout)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    if hasattr(item, "cancel_timeout"):
        _limit(item, TEARDOWN_S)
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error: object | None) -> None:
    """End the processes left behind by an ended pytest-xdist process."""
    mark = {"PYTEST_XDIST_WORKER": node.gateway.id, "PYTEST_XDIST_TESTRUNUID": node.workerinput["testrunuid"]}
    for process in psutil.process_iter() if error else ():
        with suppress(psutil.Error):
            if mark.items() <= process.environ().items():
                process.kill()


def _limit(item: pytest.Item, seconds: float) -> None:
    def fail(*_: object) -> None:
        __tracebackhide__ = True
        if not pytest_timeout.is_debugging():
            pytest.fail("\n".join([f"this took more than {seconds:g} s", _threads(), _processes()]))

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    terminal = item.config.stash[fault_handler_stderr_fd_key]
    if not pytest_timeout.is_debugging():
        faulthandler.dump_traceback_later(seconds + GRACE_S, file=terminal, exit=True)


def _threads() -> str:
    """The stacks of this process's threads except the main one's, which the failure shows."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"--- thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
        if ident != threading.main_thread().ident
    )


def _processes() -> str:
    """End this process's descendants, and return their stacks."""
    family = psutil.Process().children(recursive=True)
    doomed = [process for process in reversed(family) if _is_of_a_test(process)]
    below = {child for process in doomed for child in _below(process)}
    printed = [(process, _title(process), _stderr(process)) for process in doomed]
    for process in doomed:  # youngest first: a Ray worker does not outlive its driver
        with suppress(psutil.Error):
            process.send_signal(signal.SIGABRT)
    _, alive = psutil.wait_procs(doomed, timeout=_ABORT_S)
    for process in {*alive, *below}:
        with suppress(psutil.Error):
            process.kill()
    return "\n".join(f"--- process {process.pid}: {title}\n{_end_of(stderr)}" for process, title, stderr in printed)


def _is_of_a_test(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        title = " ".join(process.cmdline())
        return Path(process.exe()).name.startswith("python") and not any(own in title for own in (*_RAYS_OWN, *_IDLE))
    return False


def _below(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return process.children(recursive=True)
    return []


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:200]
    return "ended meanwhile"


def _stderr(process: psutil.Process) -> int | None:
    """A descriptor of a process's stderr, read from its current end; None if it cannot be read."""
    try:
        name = f"/proc/{process.pid}/fd/2"
        kind = os.stat(name).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
            return None
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(kind):
        os.lseek(file, 0, os.SEEK_END)
    return file


def _end_of(file: int | None) -> str:
    if file is None:
        return "(what it prints is not to be had)"
    text = b""
    with suppress(BlockingIOError):
        while piece := os.read(file, 2**16):
            text += piece
    os.close(file)
    return text[-_MOST_BYTES:].decode(errors="replace")
