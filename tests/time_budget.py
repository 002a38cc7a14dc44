"""A time budget for all tests together: what is marked `last` runs last, and is left out once the budget is spent.

OFFSFT_TEST_BUDGET_S sets it, in seconds; without it everything runs. CI has one, because a machine that is half as fast as
the next would otherwise not come to an end before CI's own limit. What was left out is listed at the end.
"""

import os
import time
from typing import Any

import pytest

BUDGET = "OFFSFT_TEST_BUDGET_S"
_BEGAN = "OFFSFT_TEST_BEGAN"
"""Set by the first process, for those of pytest-xdist, to the time at which it began."""
_LEFT_OUT = "the time for all tests was spent"


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[_BEGAN] = str(time.time())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    budget = os.environ.get(BUDGET)
    if budget and item.get_closest_marker("last") and time.time() - float(os.environ[_BEGAN]) > float(budget):
        pytest.skip(f"{_LEFT_OUT} ({BUDGET}={budget})")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = terminalreporter.stats.get("skipped", ())
    left = [report.nodeid for report in skipped if _LEFT_OUT in str(report.longrepr)]
    if left:
        terminalreporter.section(f"left out, since {BUDGET}={os.environ[BUDGET]} was spent")
        for test in left:
            terminalreporter.write_line(f"pytest {test}")
