"""The cascade over a scripted sampler, with the real verifier's judgement."""

import asyncio

import pytest

from offsft.cascade import CascadeSettings, rewrite, speaks_of_reference
from offsft.protocols import SamplingParams
from offsft.records import Outcome, Problem, Source
from offsft.sampling.scripted import ScriptedSampler, scripted_logprobs
from offsft.verify.math import judge

EOS = 0


class CharacterPrompts:
    """Prompts whose ids are characters; the guided prompt starts with `G`."""

    def plain(self, problem):
        return [ord(c) for c in problem.problem]

    def guided(self, problem):
        return [ord(c) for c in "G" + problem.problem + problem.solution]

    def response(self, text):
        return [*map(ord, text), EOS]


async def verify(response, problem):
    return judge(response, problem.answer)


def run(script, *, problem=None, score=None, observer=None, **changes):
    values = {
        "self_waves": (1, 1, 2),
        "guided_waves": (1, 1),
        "sampling": SamplingParams(40),
        "context_tokens": 200,
        **changes,
    }
    sampler = ScriptedSampler(script, encode=CharacterPrompts().response, decode=lambda ids: "".join(map(chr, ids)))
    if score:
        sampler.score = score
    problem = problem or Problem("id", "what", "3 + 4 = 7. \\boxed{7}", "7")
    got = rewrite(
        problem,
        prompts=CharacterPrompts(),  # type: ignore[arg-type]
        sampler=sampler,
        verifier=verify,
        settings=CascadeSettings(**values),
        observer=observer,
    )
    return asyncio.run(got), sampler


def stages(done):
    return [(attempt.stage, attempt.outcome) for attempt in done.attempts]


def test_an_own_correct_solution_is_kept_as_sampled():
    done, sampler = run(lambda prompt, n: "\\boxed{7}")
    assert done.source is Source.SELF
    assert stages(done) == [(Source.SELF, Outcome.CORRECT)]
    assert done.response_ids == [*map(ord, "\\boxed{7}"), EOS]
    assert done.behavior_logprobs == done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    assert done.generated_tokens == 10
    assert sampler.calls == 1


def test_waves_end_with_the_first_that_holds_a_correct_sample():
    done, sampler = run(lambda prompt, n: "\\boxed{7}" if n == 2 else "\\boxed{8}")
    assert done.source is Source.SELF
    assert [outcome for _, outcome in stages(done)] == [Outcome.WRONG, Outcome.WRONG, Outcome.CORRECT, Outcome.WRONG]
    assert sampler.calls == 3


def test_a_guided_solution_is_scored_under_the_plain_prompt():
    done, _ = run(lambda prompt, n: "\\boxed{7}" if prompt[0] == "G" else "no idea")
    assert done.source is Source.GUIDED
    assert stages(done) == [(Source.SELF, Outcome.NO_ANSWER)] * 4 + [(Source.GUIDED, Outcome.CORRECT)]
    guided_ids = CharacterPrompts().guided(Problem("id", "what", "3 + 4 = 7. \\boxed{7}", "7"))
    assert done.behavior_logprobs == scripted_logprobs(guided_ids, done.response_ids)
    assert done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    assert done.behavior_logprobs != done.policy_logprobs
    assert done.prompt_ids == [ord(c) for c in "what"]


def test_the_expert_comes_last_and_has_no_behavior():
    done, _ = run(lambda prompt, n: "\\boxed{8}")
    assert done.source is Source.EXPERT
    assert done.response == "3 + 4 = 7. \\boxed{7}"
    assert done.behavior_logprobs is None
    assert done.expert_mean_logprob == pytest.approx(done.mean_logprob)
    assert len(done.attempts) == 6


def test_a_truncated_response_is_not_kept_even_with_the_answer_in_it():
    done, _ = run(lambda prompt, n: "\\boxed{7}" + " and so on" * 10)
    assert done.source is Source.EXPERT
    assert {outcome for _, outcome in stages(done)} == {Outcome.TRUNCATED}


def test_a_guided_response_that_speaks_of_the_solution_is_refused():
    script = lambda prompt, n: "As the given solution says, \\boxed{7}" if prompt[0] == "G" else "no"  # noqa: E731
    done, _ = run(script)
    assert done.source is Source.EXPERT
    assert (Source.GUIDED, Outcome.LEAKED) in stages(done)


def test_a_guided_response_without_working_is_refused_where_asked_for():
    shown = Problem("id", "what", "3 + 4 makes 7, so \\boxed{7}", "7")
    script = lambda prompt, n: "\\boxed{7}" if prompt[0] == "G" else "no"  # noqa: E731
    kept, _ = run(script, problem=shown)
    assert kept.source is Source.GUIDED
    refused, _ = run(script, problem=shown, guided_min_share=0.5)
    assert refused.source is Source.EXPERT
    assert (Source.GUIDED, Outcome.BARE) in stages(refused)
    own, _ = run(lambda prompt, n: "\\boxed{7}", problem=shown, guided_min_share=0.5)
    assert own.source is Source.SELF


def test_an_own_response_may_speak_of_solutions():
    done, _ = run(lambda prompt, n: "The given solution is \\boxed{7}")
    assert done.source is Source.SELF


def test_a_guided_prompt_without_room_is_not_sampled():
    long = Problem("id", "what", "x" * 150 + "\\boxed{7}", "7")
    done, sampler = run(lambda prompt, n: "\\boxed{8}", problem=long, context_tokens=160)
    assert stages(done)[-1] == (Source.GUIDED, Outcome.TOO_LONG)
    assert done.source is Source.EXPERT
    assert sampler.calls == 3


def test_stages_can_be_left_out():
    done, _ = run(lambda prompt, n: "\\boxed{7}", self_waves=())
    assert done.source is Source.GUIDED
    done, sampler = run(lambda prompt, n: "\\boxed{7}", self_waves=(), guided_waves=())
    assert (done.source, done.attempts, sampler.calls) == (Source.EXPERT, [], 0)


def test_other_temperatures_are_scored_again():
    policy = [-0.5] * 10

    async def score(prompt_ids, response_ids):
        return policy if len(response_ids) == 10 else [-1.0] * len(response_ids)

    done, _ = run(lambda prompt, n: "\\boxed{7}", sampling=SamplingParams(40, temperature=0.7), score=score)
    assert done.policy_logprobs == policy
    assert done.behavior_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)


def test_picks_among_the_correct_samples_of_a_wave():
    texts = ["aaaa \\boxed{7}", "\\boxed{7}", "bb \\boxed{7}"]
    script = lambda prompt, n: texts[n]  # noqa: E731
    shortest, _ = run(script, self_waves=(3,), pick="shortest")
    assert shortest.response == texts[1]
    likely, _ = run(script, self_waves=(3,), pick="most_likely")
    sums = [sum(scripted_logprobs([ord(c) for c in "what"], [*map(ord, text), EOS])) for text in texts]
    assert likely.response == texts[sums.index(max(sums))]
    drawn = {
        run(script, self_waves=(3,), problem=Problem(str(i), "what", "\\boxed{7}", "7"))[0].response for i in range(30)
    }
    assert drawn == set(texts)
    again = [run(script, self_waves=(3,))[0].response for _ in range(3)]
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
    assert speaks_of_reference(text) is leaks


def test_an_observer_is_told_of_each_wave_and_attempt():
    told = []

    class Observer:
        def wave(self, stage, n):
            told.append((stage, n))

        def attempt(self, attempt):
            told.append(attempt)

    script = lambda prompt, n: "\\boxed{7}" if prompt[0] == "G" else "no"  # noqa: E731
    done, _ = run(script, observer=Observer(), self_waves=(2,), guided_waves=(1,), keep_text=True)
    assert told == [(Source.SELF, 2), *done.attempts[:2], (Source.GUIDED, 1), done.attempts[2]]
    told.clear()
    long = Problem("id", "what", "x" * 150 + "\\boxed{7}", "7")
    done, _ = run(lambda prompt, n: "no", problem=long, context_tokens=160, self_waves=(), observer=Observer())
    assert told == done.attempts
