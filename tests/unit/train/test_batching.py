"""Batch plans: complete, deterministic, and the same steps for any number of ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.train.batching import BatchPlan

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 16), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
def test_each_epoch_holds_each_row_once_within_the_token_limit(lengths, batch, ranks, seed, epochs):
    plan = BatchPlan(lengths, batch, 64, ranks, seed, epochs)
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
    one, two = BatchPlan(lengths, batch, 50, 1, seed, 2), BatchPlan(lengths, batch, 400, 3, seed, 2)
    assert [one.rows(step) for step in range(one.steps)] == [two.rows(step) for step in range(two.steps)]


def test_epochs_and_seeds_differ_in_order():
    plan = BatchPlan([1] * 40, 40, 64, 1, 0, 2)
    assert plan.rows(0) != plan.rows(1)
    assert plan.rows(0) != BatchPlan([1] * 40, 40, 64, 1, 1, 2).rows(0)


def test_ranks_get_about_the_same_tokens():
    plan = BatchPlan([37, 5, 29, 11, 23, 17, 31, 7] * 4, 32, 64, 2, 0, 1)
    tokens = [sum(plan.lengths[row] for micro in plan.micro_batches(0, rank) for row in micro) for rank in (0, 1)]
    assert abs(tokens[0] - tokens[1]) <= 5


def test_packing_is_dense():
    plan = BatchPlan([32] * 16, 16, 64, 1, 0, 1)
    assert [len(micro) for micro in plan.micro_batches(0, 0)] == [2] * 8


@pytest.mark.parametrize(("rows", "batch", "steps"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_the_last_smaller_batch_is_kept(rows, batch, steps):
    assert BatchPlan([1] * rows, batch, 64, 1, 0, 1).steps == steps


def plain_first_fit(lengths, rows, capacity):
    """First fit decreasing as in textbooks: quadratic."""
    batches = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
        for batch in batches:
            if sum(lengths[other] for other in batch) + lengths[row] <= capacity:
                batch.append(row)
                break
        else:
            batches.append([row])
    return batches


@given(LENGTHS, st.integers(40, 90), st.integers(1, 4))
def test_a_pass_over_all_rows_is_shared_out_and_packed_by_first_fit(lengths, capacity, ranks):
    plan = BatchPlan(lengths, 4, capacity, ranks, 0, 1)
    shares = [plan.share(rank) for rank in range(ranks)]
    assert sorted(row for share in shares for batch in share for row in batch) == list(range(len(lengths)))
    for share in shares:
        assert share == plain_first_fit(lengths, [row for batch in share for row in batch], capacity)


@given(LENGTHS, st.integers(1, 4))
def test_ranks_are_dealt_the_longest_row_that_is_left_in_the_order_of_their_tokens(lengths, ranks):
    plan = BatchPlan(lengths, len(lengths), 64, ranks, 0, 1)
    want, tokens = [[] for _ in range(ranks)], [0] * ranks
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        rank = min(range(ranks), key=lambda r: (tokens[r], r))
        want[rank].append(row)
        tokens[rank] += lengths[row]
    found = [sorted(row for batch in plan.share(rank) for row in batch) for rank in range(ranks)]
    assert found == [sorted(rows) for rows in want]
