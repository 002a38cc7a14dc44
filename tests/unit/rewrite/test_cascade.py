"""The cascade over a scripted sampler, with the real verifier."""

import asyncio
from dataclasses import replace

import pytest

from offsft.config import RewriteConfig
from offsft.data.tables import rewrite_row
from offsft.errors import EngineError
from offsft.inference.engines.scripted import ScriptedSampler, scripted_logprobs
from offsft.measures.leaks import leak_in_words
from offsft.prompts import Parts
from offsft.records import Outcome, Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.stages import open_stages
from offsft.verify.math import judge

EOS = 0


class CharacterPrompts:
    """Prompts with one id per character; the guided prompt starts with `G`."""

    def plain(self, problem):
        return [ord(c) for c in problem.problem]

    def guided(self, problem):
        return [ord(c) for c in "G" + problem.problem + problem.solution]

    def response(self, text):
        return [*map(ord, text), EOS]

    def text(self, ids):
        return "".join(map(chr, ids))

    def parts(self, completion):
        return Parts("", completion.text, 0, finished=True)


async def verify(response, problem):
    return judge(response, problem.answer)


def cascade(self_waves=(1, 1, 2), guided_waves=(1, 1), guided_min_share=0.0):
    """The stages of a recipe; a stage without waves is left out."""
    found = [
        {"kind": "self", "waves": self_waves},
        {"kind": "guided", "waves": guided_waves, "min_share": guided_min_share},
    ]
    return [*(stage for stage in found if stage["waves"]), {"kind": "expert"}]


def run(script, *, problem=None, score=None, observer=None, prepare=None, context_tokens=200, stages=None, **changes):
    tree = {"max_tokens": 40, "stages": stages or cascade(), "guards": {"enabled": False}}
    config = RewriteConfig.model_validate(tree | changes)
    settings = cascade_settings(config, context_tokens)
    prompts = CharacterPrompts()
    sampler = ScriptedSampler(script, encode=prompts.response, decode=lambda ids: "".join(map(chr, ids)))
    if score:
        sampler.score = score
    if prepare:
        prepare(sampler)
    problem = problem or Problem("id", "what", "3 + 4 = 7. \\boxed{7}", "7")
    got = rewrite(
        problem,
        prompts=prompts,  # type: ignore[arg-type]
        stages=open_stages(config.stages, prompts),  # type: ignore[arg-type]
        sampler=sampler,
        verifier=verify,
        settings=settings,
        observer=observer,
    )
    return asyncio.run(got), sampler


def stages(done):
    return [(attempt.stage, attempt.outcome) for attempt in done.attempts]


def test_an_own_correct_solution_is_kept_as_sampled():
    done, sampler = run(lambda prompt, n: "\\boxed{7}")
    assert done.source == "self"
    assert stages(done) == [("self", Outcome.CORRECT)]
    assert done.response_ids == [*map(ord, "\\boxed{7}"), EOS]
    assert done.behavior_logprobs == done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    assert done.generated_tokens == 10
    assert sampler.calls == 1


def test_waves_end_with_the_first_that_holds_a_correct_sample():
    done, sampler = run(lambda prompt, n: "\\boxed{7}" if n == 2 else "\\boxed{8}")
    assert done.source == "self"
    assert [outcome for _, outcome in stages(done)] == [Outcome.WRONG, Outcome.WRONG, Outcome.CORRECT, Outcome.WRONG]
    assert sampler.calls == 3


def test_a_guided_solution_is_scored_under_the_plain_prompt():
    done, _ = run(lambda prompt, n: "\\boxed{7}" if prompt[0] == "G" else "no idea")
    assert done.source == "guided"
    assert stages(done) == [("self", Outcome.NO_ANSWER)] * 4 + [("guided", Outcome.CORRECT)]
    guided_ids = CharacterPrompts().guided(Problem("id", "what", "3 + 4 = 7. \\boxed{7}", "7"))
    assert done.behavior_logprobs == scripted_logprobs(guided_ids, done.response_ids)
    assert done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    assert done.behavior_logprobs != done.policy_logprobs
    assert done.prompt_ids == [ord(c) for c in "what"]


def test_the_expert_comes_last_and_has_no_behavior():
    done, _ = run(lambda prompt, n: "\\boxed{8}")
    assert done.source == "expert"
    assert done.response == "3 + 4 = 7. \\boxed{7}"
    assert done.behavior_logprobs is None
    assert done.expert_mean_logprob == pytest.approx(done.mean_logprob)
    assert len(done.attempts) == 6


def test_a_truncated_response_is_not_kept_even_with_the_answer_in_it():
    done, _ = run(lambda prompt, n: "\\boxed{7}" + " and so on" * 10)
    assert done.source == "expert"
    assert {outcome for _, outcome in stages(done)} == {Outcome.TRUNCATED}


def test_a_guided_response_that_speaks_of_the_solution_is_refused():
    script = lambda prompt, n: "As the given solution says, \\boxed{7}" if prompt[0] == "G" else "no"  # noqa: E731
    done, _ = run(script, guards={})
    assert done.source == "expert"
    assert ("guided", Outcome.LEAKED) in stages(done)


def test_a_guided_response_without_working_is_refused_where_asked_for():
    shown = Problem("id", "what", "3 + 4 makes 7, so \\boxed{7}", "7")
    script = lambda prompt, n: "\\boxed{7}" if prompt[0] == "G" else "no"  # noqa: E731
    kept, _ = run(script, problem=shown)
    assert kept.source == "guided"
    refused, _ = run(script, problem=shown, stages=cascade(guided_min_share=0.5))
    assert refused.source == "expert"
    assert ("guided", Outcome.BARE) in stages(refused)
    own, _ = run(lambda prompt, n: "\\boxed{7}", problem=shown, stages=cascade(guided_min_share=0.5))
    assert own.source == "self"


def test_an_own_response_may_speak_of_solutions():
    done, _ = run(lambda prompt, n: "The given solution is \\boxed{7}")
    assert done.source == "self"


def test_a_guided_prompt_without_room_is_not_sampled():
    long = Problem("id", "what", "x" * 150 + "\\boxed{7}", "7")
    done, sampler = run(lambda prompt, n: "\\boxed{8}", problem=long, context_tokens=160)
    assert stages(done)[-1] == ("guided", Outcome.TOO_LONG)
    assert done.source == "expert"
    assert sampler.calls == 3


def test_stages_can_be_left_out():
    done, _ = run(lambda prompt, n: "\\boxed{7}", stages=cascade(self_waves=()))
    assert done.source == "guided"
    done, sampler = run(lambda prompt, n: "\\boxed{7}", stages=cascade((), ()))
    assert (done.source, done.attempts, sampler.calls) == ("expert", [], 0)


def test_other_temperatures_are_scored_again():
    policy = [-0.5] * 10

    async def score(prompt_ids, response_ids):
        return policy if len(response_ids) == 10 else [-1.0] * len(response_ids)

    done, _ = run(lambda prompt, n: "\\boxed{7}", temperature=0.7, score=score)
    assert done.policy_logprobs == policy
    assert done.behavior_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)


def test_picks_among_the_correct_samples_of_a_wave():
    texts = ["aaaa \\boxed{7}", "\\boxed{7}", "bb \\boxed{7}"]
    script = lambda prompt, n: texts[n]  # noqa: E731
    shortest, _ = run(script, stages=cascade((3,)), pick="shortest")
    assert shortest.response == texts[1]
    likely, _ = run(script, stages=cascade((3,)), pick="most_likely")
    sums = [sum(scripted_logprobs([ord(c) for c in "what"], [*map(ord, text), EOS])) for text in texts]
    assert likely.response == texts[sums.index(max(sums))]
    drawn = {
        run(script, stages=cascade((3,)), problem=Problem(str(i), "what", "\\boxed{7}", "7"))[0].response
        for i in range(30)
    }
    assert drawn == set(texts)
    again = [run(script, stages=cascade((3,)))[0].response for _ in range(3)]
    assert len(set(again)) == 1


def test_text_is_kept_only_where_asked_for():
    assert run(lambda prompt, n: "\\boxed{7}")[0].attempts[0].text == "\\boxed{7}"
    assert run(lambda prompt, n: "\\boxed{7}", keep_text=False)[0].attempts[0].text is None


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("According to the provided solution, it is 3.", True),
        ("The solution shown multiplies first.", True),
        ("In my own words: it is 3.", True),
        ("The answer is given by 3 * 4 = 12.", False),
        ("Mia was given 3 apples.", False),
        ("He shows the way to 4 friends.", False),
    ],
)
def test_what_counts_as_speaking_of_the_solution(text, leaks):
    assert (leak_in_words(text) is not None) is leaks


def test_an_observer_is_told_of_each_wave_and_attempt():
    told = []

    class Observer:
        def wave(self, stage, n):
            told.append((stage, n))

        def attempt(self, attempt):
            told.append(attempt)

    script = lambda prompt, n: "\\boxed{7}" if prompt[0] == "G" else "no"  # noqa: E731
    done, _ = run(script, observer=Observer(), stages=cascade((2,), (1,)), keep_text=True)
    assert told == [("self", 2), *done.attempts[:2], ("guided", 1), done.attempts[2]]
    told.clear()
    long = Problem("id", "what", "x" * 150 + "\\boxed{7}", "7")
    done, _ = run(
        lambda prompt, n: "no", problem=long, context_tokens=160, stages=cascade(self_waves=()), observer=Observer()
    )
    assert told == done.attempts


async def unscored(prompt_ids, response_ids):
    return None


@pytest.mark.parametrize(
    ("answer", "source", "policy"),
    [("\\boxed{7}", "self", True), ("\\boxed{8}", "expert", False)],
)
def test_an_engine_that_cannot_score_leaves_log_probs_null_but_those_it_sampled_with(answer, source, policy):
    done, _ = run(lambda prompt, n: answer, score=unscored)
    assert done.source == source
    assert (done.policy_logprobs is not None) is policy
    assert (done.mean_logprob is not None) is policy
    assert done.expert_logprobs is None
    assert done.expert_mean_logprob is None
    assert rewrite_row(done, verifier="math", policy="p", prompt_version="v")["expert_mean_logprob"] is None


def test_the_likeliest_cannot_be_picked_of_samples_without_log_probs():
    def silent(sampler):
        sample = sampler.sample

        async def without(prompt_ids, *, n, params):
            return [replace(each, logprobs=None) for each in await sample(prompt_ids, n=n, params=params)]

        sampler.sample = without

    assert run(lambda prompt, n: "\\boxed{7}", prepare=silent)[0].behavior_logprobs is None
    with pytest.raises(EngineError, match="most_likely needs the samples' log-probs"):
        run(lambda prompt, n: "\\boxed{7}", prepare=silent, pick="most_likely")


def test_the_expert_is_scored_beside_the_sampling():
    order = []

    def prepare(sampler):
        sample, score = sampler.sample, sampler.score

        async def sampled(*given, **options):
            await asyncio.sleep(0)
            order.append("sampled")
            return await sample(*given, **options)

        async def scored(*given):
            order.append("scored")
            return await score(*given)

        sampler.sample, sampler.score = sampled, scored

    done, _ = run(lambda prompt, number: "3 + 4 = \\boxed{7}", prepare=prepare)
    assert order == ["scored", "sampled"]
    assert done.expert_logprobs == scripted_logprobs(done.prompt_ids, done.expert_ids)


def test_a_failed_sampling_leaves_no_scoring_behind():
    ended = []

    def prepare(sampler):
        async def fail(*_, **__):
            await asyncio.sleep(0)
            raise EngineError("gone")

        async def score(*_):
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        sampler.sample, sampler.score = fail, score

    with pytest.raises(EngineError, match="gone"):
        run(lambda prompt, number: "", prepare=prepare)
    assert ended == [True]


def test_a_hopeless_problem_is_given_up_and_counted():
    done, _ = run(lambda prompt, number: "I do not know. \\boxed{8}", give_up=0.1, stages=cascade((1, 1, 2, 4), ()))
    outcomes = [outcome for _, outcome in stages(done)]
    # The chance is 0.40 of the prior, pulled down by the first wave to 0.36: 0.18 after one failure, 0.07 after four.
    assert outcomes == [Outcome.WRONG] * 4 + [Outcome.GIVEN_UP]
    assert done.attempts[-1].why == "after 4 samples that failed, the next would be correct with a chance of 0.073"
    assert done.attempts[-1].tokens == 0
    assert done.source == "expert"


def test_no_problem_is_given_up_by_default():
    done, _ = run(lambda prompt, number: "\\boxed{8}", stages=cascade((1, 1, 2, 4), ()))
    assert [outcome for _, outcome in stages(done)] == [Outcome.WRONG] * 8
