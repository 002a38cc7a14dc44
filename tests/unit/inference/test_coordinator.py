"""Which problem is blamed for an engine's death."""

import asyncio

from offsft.inference.coordinator import Admission, Blame, Coordinator


def test_all_that_ran_together_are_suspects_and_go_alone_next():
    blame = Blame(tries=2)
    assert blame.admission("a") is Admission.GO
    blame.engine_died(["a", "b"], suspect=None)
    assert {blame.admission(problem) for problem in "ab"} == {Admission.ALONE}
    assert blame.admission("c") is Admission.GO


def test_who_ran_alone_is_blamed_and_the_others_beside_it_are_not():
    blame = Blame(tries=2)
    blame.engine_died(["a", "b"], suspect=None)
    blame.engine_died(["b", "c"], suspect="b")
    assert blame.admission("b") is Admission.ALONE
    assert blame.admission("c") is Admission.GO
    blame.engine_died(["b"], suspect="b")
    assert blame.admission("b") is Admission.POISON
    assert blame.admission("a") is Admission.ALONE


def test_who_finishes_is_no_longer_suspected():
    blame = Blame(tries=2)
    blame.engine_died(["a"], suspect=None)
    blame.engine_died(["a"], suspect="a")
    blame.clear_suspect("a")
    assert blame.admission("a") is Admission.GO


def test_after_a_death_without_an_answer_the_next_engine_must_prove_itself():
    async def engines():
        coordinator = Coordinator(poison_tries=3, start_tries=2)
        told = [await coordinator.must_prove()]
        assert not await coordinator.engine_died(["a"], None, answered=False)
        told.append(await coordinator.must_prove())
        await coordinator.engine_proved()
        told.append(await coordinator.must_prove())
        return told

    assert asyncio.run(engines()) == [False, True, False]


def test_engines_that_die_before_they_answer_anything_end_the_job():
    async def engines():
        coordinator = Coordinator(poison_tries=3, start_tries=2)
        return [await coordinator.engine_died(each, None, answered=False) for each in (["a"], [])]

    assert asyncio.run(engines()) == [
        "",
        "an engine starts and dies at its first request, 2 times in a row (engine.start_tries)",
    ]


def test_engines_that_die_of_every_problem_end_the_job_and_those_that_die_of_some_do_not():
    async def deaths(*, finished):
        coordinator = Coordinator(poison_tries=2, start_tries=2)
        told = []
        for number in range(12):
            told.append(await coordinator.engine_died([str(number // 2)], str(number // 2), answered=True))
            if finished and number == 8:
                await coordinator.problems_finished({"self": 1}, 10)
        return [text for text in told if text][:1]

    assert asyncio.run(deaths(finished=False)) == ["10 engines died in a row, and no problem was finished between them"]
    assert asyncio.run(deaths(finished=True)) == []


def test_what_an_engine_waits_for_is_told_while_it_says_so():
    clock = [0.0]

    async def waits():
        coordinator = Coordinator(poison_tries=2, start_tries=2, clock=lambda: clock[0])
        await coordinator.engine_waits("1", "the server gave status 503, try 3 of 8")
        told = [(await coordinator.state()).waits]
        clock[0] = 60.0
        return [*told, (await coordinator.state()).waits]

    assert asyncio.run(waits()) == [["the server gave status 503, try 3 of 8"], []]
