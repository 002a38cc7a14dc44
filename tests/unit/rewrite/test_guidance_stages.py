"""The stages that guide the policy without the whole solution, over a scripted sampler."""

import asyncio
import json
import random

import pyarrow as pa
import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import RewriteConfig
from offsft.config.loading import load
from offsft.config.model import PromptConfig
from offsft.errors import ConfigError, EngineError
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.prompts import Prompts
from offsft.records import Outcome, Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.solved import SolvedProblems
from offsft.rewrite.stages import open_stages
from offsft.storage.paths import write_table
from offsft.verify.math import judge
from tests.unit.verify.chat_server import ChatServer, chat_server

PROMPTS = Prompts(byte_tokenizer(), PromptConfig())
PLAIN = PromptConfig().plain
PENS = Problem(
    "pens", "2 boxes of 3 pens cost 4 each?", "There are 2 * 3 = 6 pens. They cost 6 * 4 = 24. \\boxed{24}", "24"
)
RIGHT = "2 * 3 = 6 and 6 * 4 = 24: \\boxed{24}"


async def verify(response, problem):
    return judge(response, problem.answer)


def run(script, *stages, problem=PENS, solved=None, **changes):
    """The rewrite by these stages, and the prompts that the script was asked."""
    # The script's log-probs are noise.
    guards = {"support": None, "first_support": None}
    whole = {"max_tokens": 200, "stages": [*stages, {"kind": "expert"}], "guards": guards, **changes}
    config = RewriteConfig.model_validate(whole)
    asked = []

    def answer(prompt, number):
        asked.append(prompt)
        return script(prompt, number)

    sampler = ScriptedSampler(answer, encode=PROMPTS.response, decode=PROMPTS.text)
    done = asyncio.run(
        rewrite(
            problem,
            prompts=PROMPTS,
            stages=open_stages(config.stages, PROMPTS, solved),
            sampler=sampler,
            verifier=verify,
            settings=cascade_settings(config, 4000),
        )
    )
    return done, asked


def outcomes(done):
    return [f"{attempt.stage} {attempt.outcome}" for attempt in done.attempts]


def test_masked_shows_the_way_and_no_place_where_the_answer_stands():
    done, asked = run(lambda prompt, n: RIGHT, {"kind": "masked"})
    assert "There are 2 * 3 = 6 pens. They cost 6 * 4 = [...]. [...]" in asked[0]
    assert "24" not in asked[0]
    assert PLAIN.replace("{problem}", PENS.problem) in asked[0]
    assert (done.source, done.details) == ("masked", {"hidden": 2})
    assert done.behavior_logprobs != done.policy_logprobs


@pytest.mark.parametrize("leak", ["6 * 4 = [...], so \\boxed{24}", "As the given solution says, 6 * 4 is \\boxed{24}"])
def test_a_response_that_repeats_the_mask_or_speaks_of_the_solution_is_refused(leak):
    done, _ = run(lambda prompt, n: leak if n == 0 else RIGHT, {"kind": "masked", "waves": [1, 1]})
    assert outcomes(done) == ["masked leaked", "masked correct"]


def test_what_says_nothing_beside_the_answer_is_skipped_and_counted():
    done, asked = run(lambda prompt, n: RIGHT, {"kind": "masked"}, problem=Problem("id", "6 * 4?", "\\boxed{24}", "24"))
    assert (done.source, asked) == ("expert", [])
    assert outcomes(done) == ["masked skipped"]
    assert done.attempts[0].why == "the solution says nothing beside its answer"


STEPS = Problem(
    "steps",
    "How many?",
    "First 1 + 1 = 2.\nThen 2 + 3 = 5; 5 + 4 = 9. We know $$1 + 1 = 2. 2 = 2$$ too.\nNow 9 * 9 = 81.\nSo it is 81. \\boxed{81}",
    "81",
)


def test_prefix_shows_more_whole_steps_in_each_wave_and_never_the_answer():
    stage = {"kind": "prefix", "shares": [0.1, 0.5, 1], "waves": [1, 1, 1]}
    done, asked = run(
        lambda prompt, n: "9 * 9 = 81: \\boxed{81}" if "$$" in prompt else "\\boxed{1}", stage, problem=STEPS
    )
    shown = [prompt.split("begins like this:\n\n")[1].split("\n\nNow solve")[0] for prompt in asked]
    assert shown == [
        "First 1 + 1 = 2.",
        "First 1 + 1 = 2.\nThen 2 + 3 = 5;",
        "First 1 + 1 = 2.\nThen 2 + 3 = 5; 5 + 4 = 9. We know $$1 + 1 = 2. 2 = 2$$ too.",
    ]
    assert done.source == "prefix"
    assert done.details == {"share": 1.0, "shown_share": round(len(shown[2]) / len(STEPS.solution), 3)}


def test_prefix_has_nothing_to_show_of_one_step():
    done, _ = run(
        lambda prompt, n: RIGHT, {"kind": "prefix"}, problem=Problem("id", "?", "6 * 4 = 24. \\boxed{24}", "24")
    )
    assert outcomes(done) == ["prefix skipped"]


def test_refine_shows_the_last_wrong_attempt_with_its_verdict_and_not_the_reason():
    own = iter(["It is \\boxed{10}", "I do not know", "Still \\boxed{11}", RIGHT])
    done, asked = run(lambda prompt, n: next(own), {"kind": "self", "waves": [1, 1]}, {"kind": "refine"})
    assert "I do not know\n\nThis attempt was checked: it gives no final answer" in asked[2]
    assert "Still \\boxed{11}\n\nThis attempt was checked: its final answer is wrong." in asked[3]
    assert "24" not in asked[2] + asked[3]
    assert (done.source, done.details) == ("refine", {"refined": "refine", "verdict": "wrong"})


def test_refine_may_keep_to_the_attempts_of_one_stage_and_refuses_what_speaks_of_them():
    own = iter(["\\boxed{10}", "\\boxed{11}", "My first attempt was wrong, 6 * 4 is \\boxed{24}"])
    stages = [{"kind": "self", "waves": [1]}, {"kind": "guided", "waves": [1]}]
    done, asked = run(lambda prompt, n: next(own), *stages, {"kind": "refine", "of": "self", "waves": [1]})
    assert "boxed{10}" in asked[2]
    assert outcomes(done)[-1] == "refine leaked"


def test_refine_without_a_wrong_attempt_is_skipped():
    done, _ = run(lambda prompt, n: "word " * 90, {"kind": "self", "waves": [1]}, {"kind": "refine"})
    assert outcomes(done) == ["self truncated", "refine skipped"]


TEACHER = {"kind": "teacher", "model": "big", "waves": [1], "key_variable": "TEACHER_KEY", "tries": 2}


def taught(replies, script=lambda prompt, n: RIGHT, **changes):
    with chat_server() as url:
        ChatServer.replies[:] = replies
        return run(script, {**TEACHER, "url": url, **changes})


def test_the_teachers_hint_is_shown_without_the_answer_and_kept_in_the_row(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-teacher")
    done, asked = taught(["<think>24?</think>Count the pens first; you get 24 in the end."])
    assert done.details == {
        "mode": "hint",
        "teacher": "big",
        "shown": "Count the pens first; you get [...] in the end.",
    }
    assert "A hint: Count the pens first; you get [...]" in asked[0]
    key, body = ChatServer.asked[0]
    assert key == "Bearer sk-teacher"
    assert PENS.solution in body["messages"][0]["content"]
    assert done.source == "teacher"
    assert done.behavior_logprobs is not None, "the policy's own sample, not the teacher's text"


def test_the_policy_solves_again_what_the_teacher_has_solved():
    done, asked = taught(["By 6 * 4 it is \\boxed{24}"], mode="solution")
    assert "By 6 * 4 it is \\boxed{24}" in asked[0]
    assert PENS.solution not in ChatServer.asked[0][1]["messages"][0]["content"]
    assert done.response == RIGHT


def test_a_teacher_is_trained_on_only_where_the_recipe_says_so():
    done, asked = taught(["By 6 * 4 it is \\boxed{24}"], mode="solution", keep_own=True)
    assert (done.source, done.response, asked) == ("teacher", "By 6 * 4 it is \\boxed{24}", [])
    assert done.behavior_logprobs is None
    assert len(done.policy_logprobs) == len(done.response_ids)
    assert done.details["own"] is True


@pytest.mark.parametrize(
    ("replies", "changes", "reason"),
    [
        ([500, 429], {}, "RateLimitError"),
        ([("half a hint", "length")] * 2, {}, "cut off at max_tokens"),
        (["<think>never ends"] * 2, {}, "empty, or all of it is a thought"),
        (["24"], {}, "says nothing beside the answer"),
        (["It is \\boxed{25}"], {"mode": "solution"}, "the teacher's solution is judged wrong"),
        ([400], {}, "the server refused the request"),
    ],
)
def test_a_teacher_that_fails_is_counted_and_the_problem_goes_on(replies, changes, reason):
    done, asked = taught(replies, **changes)
    assert (done.source, asked) == ("expert", [])
    assert outcomes(done) == ["teacher unanswered"]
    assert reason in done.attempts[0].why


def test_a_teacher_that_nobody_may_ask_ends_the_job():
    with pytest.raises(EngineError, match=r"rewrite\.stages\.teacher: .* refuses model 'big' .*TEACHER_KEY"):
        taught([401])


def test_a_response_that_speaks_of_the_hint_is_refused():
    done, _ = taught(["Count the pens first."], lambda prompt, n: "By the hint, 6 * 4 is \\boxed{24}")
    assert outcomes(done) == ["teacher leaked"]


def solved_row(number, problem, source="self"):
    return {"id": f"id-{number}", "problem": problem, "response": f"It is \\boxed{{{number}}}.", "source": source}


def commit(folder, name, *rows):
    folder.mkdir(exist_ok=True)
    write_table(pa.Table.from_pylist(list(rows)), folder / f"{name}.parquet")


def test_examples_are_the_most_similar_solved_problems_of_the_run(tmp_path):
    rows = [
        solved_row(1, "How many boxes of pens does Mia buy?"),
        solved_row(2, "A train runs at 80 km per hour. How far?"),
        solved_row(3, "The boxes of pens cost how much each?"),
        solved_row(4, "2 boxes of 3 pens cost 4 each, all of them?", source="expert"),
    ]
    commit(tmp_path, "a", *rows)
    solved = SolvedProblems(tmp_path)
    done, asked = run(lambda prompt, n: RIGHT, {"kind": "examples", "shown": 2}, solved=solved)
    assert done.details == {"examples": ["id-3", "id-1"]}
    nearest_last = asked[0].index("The boxes of pens cost"), asked[0].index("2 boxes of 3 pens")
    assert asked[0].index("How many boxes of pens") < nearest_last[0] < nearest_last[1]
    assert "train" not in asked[0]
    assert (done.source, done.behavior_logprobs != done.policy_logprobs) == ("examples", True)


def test_examples_do_not_depend_on_the_order_in_which_problems_were_solved(tmp_path):
    rows = [solved_row(number, f"{'pens ' * (number % 3)} boxes cost") for number in range(40)]
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        commit(tmp_path / str(seed), "a", *rows[:25])
        commit(tmp_path / str(seed), "b", *rows[25:])
        found.append(asyncio.run(SolvedProblems(tmp_path / str(seed)).similar("x", PENS.problem, 5, pool=99)))
    assert found[0] == found[1] == found[2]
    assert [row.id for row in found[0]] == sorted(row.id for row in found[0])


def test_examples_grow_with_what_this_process_finishes_unless_requests_share_it(tmp_path):
    stages = [{"kind": "self", "waves": [1]}, {"kind": "examples", "waves": [1]}]
    other = Problem("other", "3 boxes of 3 pens cost 2 each?", "3 * 3 * 2 = 18. \\boxed{18}", "18")
    for grows, source in ((True, "examples"), (False, "expert")):
        solved = SolvedProblems(None, grows=grows)
        first, _ = run(lambda prompt, n: "\\boxed{18}", *stages, problem=other, solved=solved)
        assert first.source == "self"
        second, _ = run(lambda prompt, n: RIGHT if "boxed{18}" in prompt else "no", *stages, solved=solved)
        assert second.source == source
    assert outcomes(second) == ["self no_answer", "examples skipped"]


def test_the_pool_of_examples_holds_the_latest(tmp_path):
    commit(tmp_path, "a", *(solved_row(number, f"pens {number}") for number in range(9)))
    found = asyncio.run(SolvedProblems(tmp_path).similar("id-8", "pens", 9, pool=3))
    assert [row.id for row in found] == ["id-6", "id-7"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{kind: teacher}", r"rewrite\.stages\.teacher: a stage of kind teacher needs url and model: the address of"),
        ("{kind: teacher, url: 'http://x/v1'}", r"needs model"),
        ("{kind: teacher, url: teacher, model: m}", r"rewrite\.stages\.teacher\.url='teacher': "),
        ("{kind: teacher, url: 'http://x', model: m, keep_own: true}", r"keep_own=true needs mode: solution"),
        ("{kind: masked, prompt: 'Solve {plain}'}", r"prompt of a stage of kind masked does not contain \{shown\}"),
        ("{kind: prefix, waves: [1]}", r"waves=\[1\] and shares=.* one growing share per wave"),
        ("{kind: prefix, shares: [0.5, 0.25, 1]}", r"do not go together"),
        ("{kind: examples, shown: 0}", r"rewrite\.stages\.examples\.shown=0"),
        ("{kind: refine, of: guided}", r"rewrite\.stages\.refine\.of=guided: no stage before it has this name"),
    ],
)  # fmt: skip
def test_a_stage_that_cannot_work_is_refused_at_once(stage, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load(None, ["run=x", f"rewrite.stages=[{stage}, {{kind: expert}}]"])
    assert "\n" not in str(refused.value)


def test_details_can_be_written_into_a_row():
    done, _ = run(lambda prompt, n: RIGHT, {"kind": "prefix"})
    assert json.loads(json.dumps(done.details)) == done.details
    assert all(isinstance(attempt.outcome, Outcome) for attempt in done.attempts)
