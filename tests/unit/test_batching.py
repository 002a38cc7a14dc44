"""Batch plans: complete, deterministic, and the same steps whatever the ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.batching import Plan

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 16), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
def test_each_epoch_holds_each_row_once_within_the_token_limit(lengths, batch, ranks, seed, epochs):
    plan = Plan(lengths, batch, 64, ranks, seed, epochs)
    for epoch in range(epochs):
        seen = []
        for step in range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch):
            shares = [plan.micro_batches(step, rank) for rank in range(ranks)]
            assert len({len(share) for share in shares}) == 1
            in_step = [row for share in shares for micro in share for row in micro]
            assert sorted(in_step) == sorted(plan.rows(step))
            assert all(sum(lengths[row] for row in micro) <= 64 for share in shares for micro in share)
            seen += in_step
        assert sorted(seen) == list(range(len(lengths)))
    assert plan.steps == epochs * plan.steps_per_epoch


@given(LENGTHS, st.integers(1, 16), st.integers(0, 5))
def test_the_rows_of_a_step_do_not_depend_on_ranks_or_micro_batches(lengths, batch, seed):
    one, two = Plan(lengths, batch, 50, 1, seed, 2), Plan(lengths, batch, 400, 3, seed, 2)
    assert [one.rows(step) for step in range(one.steps)] == [two.rows(step) for step in range(two.steps)]


def test_epochs_and_seeds_differ_in_order():
    plan = Plan([1] * 40, 40, 64, 1, 0, 2)
    assert plan.rows(0) != plan.rows(1)
    assert plan.rows(0) != Plan([1] * 40, 40, 64, 1, 1, 2).rows(0)


def test_ranks_get_about_the_same_tokens():
    plan = Plan([37, 5, 29, 11, 23, 17, 31, 7] * 4, 32, 64, 2, 0, 1)
    tokens = [sum(plan.lengths[row] for micro in plan.micro_batches(0, rank) for row in micro) for rank in (0, 1)]
    assert abs(tokens[0] - tokens[1]) <= 5


def test_packing_is_dense():
    plan = Plan([32] * 16, 16, 64, 1, 0, 1)
    assert [len(micro) for micro in plan.micro_batches(0, 0)] == [2] * 8


@pytest.mark.parametrize(("rows", "batch", "steps"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_the_last_smaller_batch_is_kept(rows, batch, steps):
    assert Plan([1] * rows, batch, 64, 1, 0, 1).steps == steps
