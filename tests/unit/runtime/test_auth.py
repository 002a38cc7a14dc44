"""When a command sends a token to the cluster that it joins."""

import os
import sys

import pytest

from offsft.runtime.auth import bring_token

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home of a user without a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that monkeypatch undoes what a test sets
        monkeypatch.delenv(name)
    return tmp_path


def test_without_a_token_nothing_is_said(home):
    bring_token()
    assert "RAY_AUTH_MODE" not in os.environ


def test_the_users_own_token_is_shown(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0" * 64)
    bring_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_given_token_is_shown(home, monkeypatch, name):
    monkeypatch.setenv(name, "given")
    bring_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_the_users_word_stands(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    bring_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_where_ray_is_imported_already_its_own_word_stands(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    monkeypatch.setitem(sys.modules, "ray", sys)
    bring_token()
    assert "RAY_AUTH_MODE" not in os.environ
