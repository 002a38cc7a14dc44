"""Guards: a correct guided response is refused for what the hint did to it, and the next wave or stage goes on."""

import pytest
from test_cascade import cascade, run

from offsft.data.tables import REWRITE_SCHEMA, rewrite_row
from offsft.errors import EngineError
from offsft.inference.engines.scripted import scripted_logprobs
from offsft.records import Outcome, Problem

SOLUTION = "First 5 * 7 = 35. Then 35 + 3 = 38. \\boxed{38}"
PROBLEM = Problem("id", "Five boxes of 7 and 3 more?", SOLUTION, "38")
FAITHFUL = "35 and 3 make 38: \\boxed{38}"


def guided(*texts, guards=None, score=None, waves=None, **more):
    """The rewrite of a problem that is only solved with guidance; `texts` are the guided samples in turn."""
    done, sampler = run(
        lambda prompt, n: texts[n] if prompt[0] == "G" else "no",
        problem=PROBLEM,
        stages=cascade((1,), waves or (1,) * len(texts)),
        guards={"support": None, "first_support": None} | (guards or {}),
        score=score,
        context_tokens=400,
        **{"max_tokens": 100} | more,
    )
    return done, sampler


def told(done):
    return [(attempt.outcome, attempt.why) for attempt in done.attempts if attempt.stage == "guided"]


def surprised_at(value, *, everywhere=-0.1, there=-6.0, only_last=False):
    """A score that finds the characters of `value` unlikely."""

    async def score(prompt_ids, response_ids):
        text = "".join(map(chr, response_ids))
        found = [everywhere] * len(response_ids)
        place = text.rfind(value) if only_last else text.find(value)
        if place >= 0:
            found[place] = there
        return found

    return score


@pytest.mark.parametrize(
    ("text", "outcome", "why"),
    [
        ("You're right! 5 and 7 and 3 give \\boxed{38}", Outcome.LEAKED, "You're right"),
        ("You're right! The answer is \\boxed{38}", Outcome.LEAKED, "You're right"),
        ("So it is \\boxed{38}", Outcome.BARE, "no number but the answer"),
        ("5 * 7 = 34, then \\boxed{38}", Outcome.FALSE_STEP, "5 * 7 = 34"),
        (SOLUTION, Outcome.COPIED, "100% of its n-grams are the expert's"),
    ],
)
def test_a_refused_response_has_an_outcome_and_a_reason_and_the_next_wave_goes_on(text, outcome, why):
    done, _ = guided(text, FAITHFUL)
    assert told(done) == [(outcome, why), (Outcome.CORRECT, None)]
    assert (done.source, done.response) == ("guided", FAITHFUL)


def test_where_every_guided_response_is_refused_the_expert_is_kept():
    done, _ = guided("So it is \\boxed{38}", "\\boxed{38}")
    assert done.source == "expert"
    assert [outcome for outcome, _ in told(done)] == [Outcome.BARE] * 2


@pytest.mark.parametrize(
    ("guards", "score", "kept"),
    [
        ({"support": -4.6}, surprised_at("38", only_last=True), False),
        ({"support": -4.6}, surprised_at("38"), True),
        ({"first_support": -4.6}, surprised_at("38"), False),
        ({"first_support": -4.6}, surprised_at("38", only_last=True), True),
        ({"support": -4.6, "first_support": -4.6}, surprised_at("no such value"), True),
        ({"support": -4.6, "enabled": False}, surprised_at("38", only_last=True), True),
    ],
)
def test_an_answer_that_the_policy_would_not_write_there_is_unsupported(guards, score, kept):
    done, _ = guided(FAITHFUL, guards=guards, score=score)
    assert (done.source == "guided") is kept
    if not kept:
        ((outcome, why),) = told(done)
        assert outcome is Outcome.UNSUPPORTED
        assert "log-prob -6.1" in why


def test_own_responses_pass_the_guards_and_are_measured():
    done, _ = run(lambda prompt, n: "You're right! \\boxed{38}", problem=PROBLEM, guards={}, context_tokens=400)
    assert done.source == "self"
    assert done.measures.leak == "You're right"
    assert done.measures.bare is True
    assert done.measures.hint_lift is None


def test_a_kept_response_is_scored_once_and_its_measures_are_in_the_row():
    calls = []

    async def score(prompt_ids, response_ids):
        calls.append(len(response_ids))
        return scripted_logprobs(prompt_ids, response_ids)

    done, _ = guided(FAITHFUL, guards={"support": -1e6}, score=score)
    assert sorted(calls) == sorted([len(done.response_ids), len(done.expert_ids)])
    assert done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    found = rewrite_row(done, verifier="", policy="", prompt_version="")["measures"]
    place = FAITHFUL.rindex("38")
    assert found["support_last"] == pytest.approx(sum(done.policy_logprobs[place : place + 2]))
    assert found["hint_lift"] is not None
    assert (found["holding_steps"], found["false_steps"], found["leak"], found["bare"]) == (0, 0, None, False)
    assert found["expert_length"] == len(done.response_ids) / len(done.expert_ids)
    assert found["own_length"] == pytest.approx(len(done.response_ids) / 3)
    assert set(found) == {field.name for field in REWRITE_SCHEMA.field("measures").type}


def test_refused_responses_are_not_scored_unless_a_guard_needs_it():
    calls = []

    async def score(prompt_ids, response_ids):
        calls.append(response_ids)
        return [-0.1] * len(response_ids)

    done, _ = guided("So it is \\boxed{38}", "5 * 7 = 34, \\boxed{38}", guards={"support": -1.0}, score=score)
    assert calls == [done.expert_ids]


def test_the_lift_of_a_passage_refuses_as_a_leak_only_where_the_policy_itself_is_sampled():
    unlikely = surprised_at("make", everywhere=0.0, there=-400.0)
    assert told(guided(FAITHFUL, guards={"hint_lift": 300.0}, score=unlikely)[0])[0][0] is Outcome.LEAKED
    cooler, _ = guided(FAITHFUL, guards={"hint_lift": 300.0}, score=unlikely, temperature=0.5)
    assert cooler.source == "guided"
    assert cooler.measures.hint_lift is None


def test_an_engine_that_cannot_score_lets_pass_what_it_cannot_judge():
    async def unscored(prompt_ids, response_ids):
        return None

    done, _ = guided(FAITHFUL, guards={"support": -1.0}, score=unscored)
    assert done.source == "guided"
    assert (done.measures.support_last, done.measures.false_steps) == (None, 0)


def test_the_best_supported_or_the_likeliest_on_the_plain_prompt_is_picked():
    texts = ("35 and 3, so 38: \\boxed{38}", "35 or 3, thus 38: \\boxed{38}")

    async def score(prompt_ids, response_ids):
        text = "".join(map(chr, response_ids))
        likely, supported = ("so" in text, -3.0) if "so" in text else (False, -0.2)
        found = [-0.1 if likely else -0.5] * len(response_ids)
        place = text.find("38")
        if place >= 0:
            found[place] = supported
        return found

    for pick, kept in (("most_on_policy", texts[0]), ("most_supported", texts[1])):
        assert guided(*texts, waves=(2,), pick=pick, score=score)[0].response == kept


@pytest.mark.parametrize("pick", ["most_on_policy", "most_supported"])
def test_a_pick_by_scores_needs_an_engine_that_scores(pick):
    async def unscored(prompt_ids, response_ids):
        return None

    with pytest.raises(EngineError, match=f"rewrite.pick={pick} needs an engine that scores"):
        guided(FAITHFUL, pick=pick, score=unscored)
