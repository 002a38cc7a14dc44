"""The services' start shows what is still starting, and has a limit."""

from types import SimpleNamespace

import pytest

from offsft.errors import EngineError
from services import deploy


@pytest.fixture
def statuses(monkeypatch):
    """Sets the statuses that Serve tells, one after another; the last one stays."""

    def tell(*each):
        told = [{name: SimpleNamespace(status=status, message="m") for name, status in one.items()} for one in each]
        answers = iter([*told[:-1], *[told[-1]] * 10_000])
        monkeypatch.setattr(deploy.serve, "status", lambda: SimpleNamespace(applications=next(answers)))

    monkeypatch.setattr(deploy, "_POLL_S", 0)
    return tell


def test_what_is_still_starting_is_shown(statuses):
    statuses(
        {"gateway": "RUNNING"}, {"gateway": "RUNNING", "llm": "DEPLOYING"}, {"gateway": "RUNNING", "llm": "RUNNING"}
    )
    shown = []
    deploy.wait_until_running(["gateway", "llm"], shown.append)
    assert shown == ["starting llm, 0 s"] * 2


def test_a_start_that_takes_too_long_ends_with_the_names(statuses, monkeypatch):
    monkeypatch.setattr(deploy, "START_S", -1)
    statuses({"gateway": "RUNNING", "llm": "DEPLOYING"})
    with pytest.raises(EngineError, match=r"^llm did not start within -1 s; see the logs of Ray Serve"):
        deploy.wait_until_running(["gateway", "llm"], [].append)


def test_a_failed_start_ends_with_serves_reason(statuses):
    statuses({"llm": "DEPLOY_FAILED"})
    with pytest.raises(EngineError, match="llm did not start: m"):
        deploy.wait_until_running(["llm"], [].append)
