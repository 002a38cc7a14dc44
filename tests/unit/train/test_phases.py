"""What the training processes do, and what is said when one of them stands still."""

import asyncio

import pytest

from offsft.train.phases import Doing, Phase, Pulse, TrainingWatch, describe


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return TrainingWatch(clock)


def do(*calls):
    async def all_of_them():
        return [await call for call in calls]

    return asyncio.run(all_of_them())


def test_the_screen_says_the_phase_that_all_workers_are_in():
    assert describe({0: Doing(Phase.LOADING, 75), 1: Doing(Phase.LOADING, 70)}) == "loading the weights, 1 min 10 s"


def test_the_screen_says_who_waits_for_whom():
    doing = {0: Doing(Phase.WAITING, 5), 1: Doing(Phase.LOADING, 9), 2: Doing(Phase.WAITING, 4)}
    assert describe(doing) == "workers 0, 2 waiting for the other workers; worker 1 loading the weights, 4 s"


def test_a_stalled_worker_is_named_with_its_phase_and_its_time_and_what_the_others_do(watch, clock):
    do(watch.begin(0, "a", "10.0.0.1 (one)", Phase.LOADING), watch.begin(1, "b", "10.0.0.2 (two)", Phase.WAITING))
    clock.now_s = 3600.0
    _, state = do(watch.stall(0, "a", 3600.0, 3600.0), watch.state())
    assert state.stalls == [
        "worker 0 on 10.0.0.1 (one) has shown no sign of life for 1 h 00 min (train.stall_s=3600), loading the weights;"
        " worker 1 waiting for the other workers; each worker's stack is at the end of its log, logs/train-*.log"
    ]


def test_a_worker_that_only_waits_is_not_the_one_named(watch, clock):
    do(watch.begin(0, "a", "one", Phase.WAITING))
    clock.now_s = 10.0
    do(watch.begin(1, "b", "two", Phase.COMPILING))
    clock.now_s = 60.0
    _, state = do(watch.stall(0, "a", 60.0, 60.0), watch.state())
    assert state.stalls[0].startswith(
        "worker 1 on two has shown no sign of life for 50 s (train.stall_s=60), compiling; worker 0 waiting"
    )


def test_a_stall_ends_every_worker_of_its_attempt_and_none_of_the_next(watch):
    async def attempts():
        await watch.begin(0, "a", "one", Phase.LOADING)
        await watch.begin(1, "b", "two", Phase.WAITING)
        ended = [asyncio.ensure_future(watch.until_stalled(token)) for token in "ab"]
        await watch.stall(0, "a", 60.0, 60.0)
        await watch.stall(1, "b", 61.0, 60.0)  # of the same stall: it is told once
        await asyncio.gather(*ended)
        await watch.begin(1, "b", "two", Phase.BUILDING)  # a last word of the old process
        await watch.begin(0, "c", "one", Phase.CONNECTING)
        following = asyncio.ensure_future(watch.until_stalled("c"))
        await asyncio.sleep(0)
        return following.done(), await watch.state()

    over, state = asyncio.run(attempts())
    assert not over
    assert len(state.stalls) == 1
    assert list(state.doing) == [0]


def test_a_process_without_a_watch_knows_its_phase():
    pulse = Pulse()
    pulse.begin(Phase.BUILDING)
    assert pulse.begin(Phase.COMPILING) is Phase.BUILDING
    pulse.stop()
