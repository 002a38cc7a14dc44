"""Programs that some tests need in addition to the Python environment: such a test is skipped if one is missing.

A test declares it with `@pytest.mark.needs("bwrap")`, a fixture by calling `require`. At the end one table lists the
skipped tests by missing program, with the command that installs it.
"""

import os
import re
import shutil
from collections import Counter
from typing import Any

import pytest

INSTALL = {
    "chromium": "apt-get install chromium",
    "chromedriver": "apt-get install chromium-driver",
    "bwrap": "apt-get install bubblewrap",
    "prometheus": "apt-get install prometheus",
    "ip": "apt-get install iproute2",
    "kubectl": "see kubernetes.io/docs/tasks/tools",
}
_OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}
_IN_CI = {"chromium", "chromedriver"}
"""CI fails without these, so that it cannot pass without having opened a page."""
_MISSING = re.compile(r"needs the program (\S+), ")


def find(program: str) -> str | None:
    """The program's path, under any of its names."""
    return next(filter(None, map(shutil.which, (program, *_OTHER_NAMES.get(program, ())))), None)


def require(*programs: str) -> None:
    """Skip the running test if one of the programs is missing."""
    for program in programs:
        if find(program) is None:
            reason = f"needs the program {program}, which is not installed ({INSTALL[program]})"
            pytest.fail(reason) if "CI" in os.environ and program in _IN_CI else pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        require(*marker.args)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    missing = Counter(found[1] for reason in reasons if (found := _MISSING.search(reason)))
    if missing:
        terminalreporter.section("skipped for want of a program")
        terminalreporter.write_line(f"{'program':14}{'tests':>5}  to have it")
    for program, tests in missing.most_common():
        terminalreporter.write_line(f"{program:14}{tests:>5}  {INSTALL[program]}")
