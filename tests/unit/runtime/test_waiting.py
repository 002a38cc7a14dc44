"""Work that reports nothing itself is shown with its duration, and with what the cluster lacks."""

import threading

import pytest

from offsft.runtime import waiting
from offsft.runtime.placement import Need
from offsft.runtime.waiting import show_elapsed


class Screen:
    """A console that remembers its lines, and says when it has some number of them."""

    def __init__(self, wanted):
        self.lines = []
        self._wanted = wanted
        self.enough = threading.Event()

    def progress(self, text):
        self.lines.append(text)
        if len(self.lines) == self._wanted:
            self.enough.set()

    def done(self):
        self.lines.append("done")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(waiting, "_POLL_S", 0.01)


def test_a_reading_says_how_long_it_has_taken_and_its_end_ends_that():
    screen = Screen(3)
    with show_elapsed(screen, "intake: reading the problems"):
        assert screen.enough.wait(60)
    count = len(screen.lines)
    assert screen.lines[:2] == ["intake: reading the problems", "intake: reading the problems, 0 s"]
    assert screen.lines[-1] == "done"
    assert len(screen.lines) == count


def test_a_reading_that_no_node_has_room_for_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(waiting, "shortage", lambda need: "needs 1 CPU, the cluster has 0")
    screen = Screen(2)
    with show_elapsed(screen, "intake: reading the problems", Need.of_intake()):
        assert screen.enough.wait(60)
    assert screen.lines[1] == "intake: reading the problems: waiting: needs 1 CPU, the cluster has 0, 0 s"


def test_a_reading_that_fails_ends_its_line_too():
    screen = Screen(1)
    with pytest.raises(ValueError, match="broken"), show_elapsed(screen, "intake"):
        raise ValueError("broken")
    assert screen.lines[-1] == "done"
