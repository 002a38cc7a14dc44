"""Who is blamed for an engine's death."""

from offsft.foreman import Blame, Leave


def test_all_that_ran_together_are_suspects_and_go_alone_next():
    blame = Blame(tries=2)
    assert blame.leave("a") is Leave.GO
    blame.died(["a", "b"], alone=None)
    assert {blame.leave(problem) for problem in "ab"} == {Leave.ALONE}
    assert blame.leave("c") is Leave.GO


def test_who_ran_alone_is_blamed_and_the_others_beside_it_are_not():
    blame = Blame(tries=2)
    blame.died(["a", "b"], alone=None)
    blame.died(["b", "c"], alone="b")
    assert blame.leave("b") is Leave.ALONE
    assert blame.leave("c") is Leave.GO
    blame.died(["b"], alone="b")
    assert blame.leave("b") is Leave.POISON
    assert blame.leave("a") is Leave.ALONE


def test_who_finishes_is_acquitted():
    blame = Blame(tries=2)
    blame.died(["a"], alone=None)
    blame.died(["a"], alone="a")
    blame.acquit("a")
    assert blame.leave("a") is Leave.GO
