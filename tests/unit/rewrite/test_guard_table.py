"""The table of what the guards changed, from rows as a run keeps them."""

from benchmarks.guard_table import table


def row(source, *attempts, support=None):
    return {
        "source": source,
        "attempts": [{"stage": stage, "outcome": outcome} for stage, outcome in attempts],
        "measures": None if support is None else {"support_first": support, "support_last": support},
    }


def test_what_a_guard_refused_would_have_been_kept_at_its_place():
    rows = [
        row("self", ("self", "correct"), support=-0.1),
        row("guided", ("self", "wrong"), ("guided", "unsupported"), ("guided", "correct"), support=-3.0),
        row("expert", ("self", "wrong"), ("masked", "leaked"), ("guided", "bare")),
        row("expert", ("self", "truncated"), ("masked", "wrong"), ("guided", "wrong")),
    ]
    found = table(rows)
    assert found["problems"] == 4
    assert list(found["sources"]) == ["self", "masked", "guided", "expert"]
    assert {name: (each["kept"], each["kept_without_guards"]) for name, each in found["sources"].items()} == {
        "self": (1, 1),
        "masked": (0, 1),
        "guided": (1, 1),
        "expert": (2, 1),
    }
    assert found["sources"]["guided"]["refused"] == {"unsupported": 1, "bare": 1}
    assert found["sources"]["guided"]["unsupported_last"] == 1.0
    assert found["sources"]["self"]["unsupported_last"] == 0.0
    assert found["sources"]["expert"]["unsupported_last"] is None
