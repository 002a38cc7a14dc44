"""The fair queue: places, shares, weights, and who is turned away."""

import asyncio
from collections import Counter

import pytest

from services.admission import Gate
from services.errors import ApiError
from services.settings import Limits


def run(scene):
    return asyncio.run(asyncio.wait_for(scene(), 30))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def waits(gate, key, **more):
    return asyncio.ensure_future(gate.enter(key, "m", **more))


def test_a_key_never_holds_more_than_its_share_and_another_is_let_in_at_once():
    async def scene():
        gate = Gate(Limits(active=8, key_share=0.5))
        flood = [waits(gate, "flood") for _ in range(30)]
        await settle()
        assert (gate.running, gate.waiting) == (4, 26)
        await gate.enter("other", "m", sequences=4)
        assert gate.running == 8
        for task in flood:
            task.cancel()
        await settle()
        assert gate.waiting == 0

    run(scene)


def test_a_big_request_takes_its_places_and_is_not_overtaken_for_ever():
    async def scene():
        gate = Gate(Limits(active=4, key_share=1))
        first = await gate.enter("a", "m", sequences=3)
        big = waits(gate, "b", sequences=4)
        small = waits(gate, "a", sequences=1)
        await settle()
        assert (big.done(), small.done()) == (False, False), "the small one would fit"
        first.close()
        first.close()  # once is enough
        await settle()
        assert (big.done(), small.done()) == (True, False)
        (await big).close()
        (await small).close()
        assert gate.running == 0
        (await gate.enter("a", "m", sequences=99)).close()

    run(scene)


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 10), (3.0, 15)])
def test_the_next_is_who_has_had_least_for_its_weight(weight, expected):
    async def scene():
        gate = Gate(Limits(active=1, key_share=1, queued=100), {"a": weight})
        order = []
        held = await gate.enter("c", "m")

        async def ask(key, tokens):
            ticket = await gate.enter(key, "m", tokens=tokens)
            order.append(key)
            ticket.close()

        asking = [asyncio.ensure_future(ask(key, 10)) for key in "a" * 20 + "b" * 20]
        await settle()
        held.close()
        await asyncio.gather(*asking)
        return Counter(order[:20])["a"]

    assert run(scene) == pytest.approx(expected, abs=1)


def test_costly_requests_of_one_key_come_less_often():
    async def scene():
        gate = Gate(Limits(active=1, key_share=1))
        order = []
        held = await gate.enter("c", "m")

        async def ask(key, tokens):
            ticket = await gate.enter(key, "m", tokens=tokens)
            order.append(key)
            ticket.close()

        asking = [asyncio.ensure_future(ask("a", 100)) for _ in range(10)]
        asking += [asyncio.ensure_future(ask("b", 10)) for _ in range(10)]
        await settle()
        held.close()
        await asyncio.gather(*asking)
        return order

    assert Counter(run(scene)[:11]) == {"a": 1, "b": 10}


def test_priority_orders_the_requests_of_one_key_alone():
    async def scene():
        gate = Gate(Limits(active=1, key_share=1))
        order = []
        held = await gate.enter("c", "m")

        async def ask(key, priority):
            ticket = await gate.enter(key, "m", priority=priority)
            order.append((key, priority))
            ticket.close()

        asking = [asyncio.ensure_future(ask(*each)) for each in (("a", 0), ("a", 5), ("a", -5), ("b", -100))]
        await settle()
        held.close()
        await asyncio.gather(*asking)
        return order

    assert run(scene) == [("a", -5), ("b", -100), ("a", 0), ("a", 5)]


def test_a_full_queue_turns_away_the_key_that_waits_with_most():
    async def scene():
        gate = Gate(Limits(active=1, key_share=1, queued=4))
        held = await gate.enter("c", "m")
        flood = [waits(gate, "flood") for _ in range(6)]
        await settle()
        assert [task.done() for task in flood] == [False] * 4 + [True] * 2, "its own newest are refused"
        other = waits(gate, "other")
        await settle()
        assert not other.done()
        assert isinstance(flood[3].exception(), ApiError)
        assert flood[3].exception().status_code == 503
        held.close()
        await settle()
        assert other.done() or flood[0].done()

    run(scene)


def test_models_have_places_of_their_own():
    async def scene():
        gate = Gate(Limits(active=1, queued=0))
        await gate.enter("a", "one")
        await gate.enter("a", "two")
        with pytest.raises(ApiError):
            await gate.enter("a", "one")

    run(scene)


def test_who_leaves_while_it_waits_or_as_it_is_let_in_leaves_its_place():
    async def scene():
        gate = Gate(Limits(active=1, key_share=1, deadline_s=0.2))
        held = await gate.enter("a", "m")
        with pytest.raises(TimeoutError):
            await gate.enter("b", "m")
        late = waits(gate, "b")
        await settle()
        held.close()
        late.cancel()  # it has its place, and has not heard of it
        await settle()
        assert (gate.running, gate.waiting) == (0, 0)

    run(scene)
