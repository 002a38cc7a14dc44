"""An engine that stopped answering is detected; a slow one is left alone."""

import asyncio

import pytest

from offsft.errors import EngineError
from offsft.inference.watchdog import WatchdogSampler


class Engine:
    """A fake engine that answers after the seconds given for scoring, or never if None."""

    async def score(self, prompt_ids, seconds):
        await asyncio.sleep(seconds) if seconds is not None else await asyncio.Event().wait()
        return [seconds]


def test_a_hanging_engine_is_dead_for_all_that_wait():
    async def ask():
        sampler = WatchdogSampler(Engine(), stall_s=0.3)
        answers = await asyncio.gather(*(sampler.score([], None) for _ in range(3)), return_exceptions=True)
        return sampler.alive, answers

    alive, answers = asyncio.run(ask())
    assert not alive
    assert [type(answer) for answer in answers] == [EngineError] * 3


def test_one_that_answers_others_meanwhile_is_alive():
    async def ask():
        sampler = WatchdogSampler(Engine(), stall_s=0.5)
        slow = asyncio.ensure_future(sampler.score([], 1.2))
        for _ in range(6):
            await sampler.score([], 0.2)
        return sampler.alive, await slow

    assert asyncio.run(ask()) == (True, [1.2])


def test_time_without_questions_does_not_count():
    async def ask():
        sampler = WatchdogSampler(Engine(), stall_s=0.3)
        await sampler.score([], 0)
        await asyncio.sleep(0.5)
        return await sampler.score([], 0.2)

    assert asyncio.run(ask()) == [0.2]


def test_an_error_of_the_engine_comes_through():
    class Broken:
        alive = False

        async def score(self, prompt_ids, response_ids):
            raise RuntimeError("dead")

    sampler = WatchdogSampler(Broken(), stall_s=1)
    with pytest.raises(RuntimeError, match="dead"):
        asyncio.run(sampler.score([], []))
    assert not sampler.alive


def test_a_long_silence_is_told_before_it_is_a_death(monkeypatch):
    monkeypatch.setattr("offsft.inference.watchdog._LONG_S", 0.1)

    async def ask():
        sampler = WatchdogSampler(Engine(), stall_s=60)
        told = [sampler.waits()]
        slow = asyncio.ensure_future(sampler.score([], 0.4))
        await asyncio.sleep(0.2)
        told.append(sampler.waits())
        await slow
        return [*told, sampler.waits()]

    assert asyncio.run(ask()) == ["", "no answer from an engine for 0 s (engine.stall_s=60)", ""]
