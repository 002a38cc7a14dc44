"""Stages: the order of a recipe's list, stages from outside the repository, and problems that no stage solves."""

import asyncio
import sys

import pytest
from test_cascade import CharacterPrompts, cascade, run, verify

from offsft.config import RewriteConfig
from offsft.data.tables import REWRITE_SCHEMA, rewrite_row
from offsft.errors import ConfigError
from offsft.inference.engines.scripted import ScriptedSampler, scripted_logprobs
from offsft.records import Outcome, Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.stages import check_stages, open_stages

MODULE = '''
from offsft.config.stages import WavesConfig
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.records import Completion, Outcome
from offsft.rewrite.stages.base import Prompt, Stage


class PrefixConfig(WavesConfig):
    shares: list[float] = [0.25, 0.5, 0.75]


class Prefix(Stage[PrefixConfig]):
    config = PrefixConfig

    async def prompt(self, problem, attempts, wave):
        if wave >= len(self.settings.shares):
            return None
        share = self.settings.shares[wave]
        shown = problem.solution[: round(share * len(problem.solution))]
        return Prompt([ord(c) for c in "P" + problem.problem + shown], details={"shown_share": share})


class Refine(Stage):
    """Shows the policy's own last wrong attempt."""

    async def prompt(self, problem, attempts, wave):
        wrong = [attempt.text for attempt in attempts if attempt.outcome is Outcome.WRONG]
        return Prompt([ord(c) for c in "R" + wrong[-1]]) if wrong else None

    def refuses(self, completion, problem):
        return Outcome.BARE if len(completion.text) < 12 else None


class Teacher(Stage):
    """Samples another model, which gives no log-probs."""

    finished_sources = []

    def __init__(self, settings, prompts):
        super().__init__(settings, prompts)
        self.sampler = self
        self.closed = False

    async def sample(self, prompt_ids, *, n, params):
        ids = self.prompts.response("The teacher says \\\\boxed{7}")
        return [Completion("The teacher says \\\\boxed{7}", ids, None, "stop") for _ in range(n)]

    async def prompt(self, problem, attempts, wave):
        return Prompt(self.prompts.plain(problem))

    def finished(self, rewrite):
        self.finished_sources.append(rewrite.source)

    def close(self):
        self.closed = True


class NoStage:
    pass
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "unknown_stages.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "unknown_stages"
    sys.modules.pop("unknown_stages", None)


def own(kind, **more):
    return {"kind": f"unknown_stages:{kind}", **more}


def test_a_stage_of_ones_own_asks_another_prompt_in_each_wave_and_keeps_what_it_showed(module):
    stages = [{"kind": "self", "waves": [1]}, own("Prefix", waves=[1, 1, 1]), {"kind": "expert"}]
    solution = "3 + 4 = 7, so it is \\boxed{7}"
    script = lambda prompt, n: "\\boxed{7}" if "so" in prompt else "\\boxed{1}"  # noqa: E731
    done, _ = run(script, problem=Problem("id", "what", solution, "7"), stages=stages)
    assert (done.source, done.details) == ("Prefix", {"shown_share": 0.5})
    assert [str(attempt.outcome) for attempt in done.attempts] == ["wrong", "wrong", "correct"]
    assert done.behavior_logprobs != done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    assert rewrite_row(done, verifier="", policy="", prompt_version="")["details"] == '{"shown_share": 0.5}'


def test_a_stage_with_nothing_left_to_ask_hands_the_problem_on(module):
    stages = [own("Prefix", waves=[1] * 5, shares=[0.5]), {"kind": "expert"}]
    done, sampler = run(lambda prompt, n: "\\boxed{1}", stages=stages)
    assert (done.source, sampler.calls, done.details) == ("expert", 1, None)


def test_a_stage_sees_the_texts_of_earlier_attempts_even_where_rows_do_not_keep_them(module):
    stages = [{"kind": "self", "waves": [1]}, own("Refine", waves=[1, 1]), {"kind": "expert"}]
    script = lambda prompt, n: ["\\boxed{7}", "so it is \\boxed{7}"][n] if prompt[0] == "R" else "it is \\boxed{6}"  # noqa: E731
    done, _ = run(script, stages=stages, keep_text=False)
    assert [attempt.outcome for attempt in done.attempts] == [Outcome.WRONG, Outcome.BARE, Outcome.CORRECT]
    assert (done.source, done.response) == ("Refine", "so it is \\boxed{7}")
    assert all(attempt.text is None for attempt in done.attempts)


@pytest.mark.parametrize("pick", ["random", "shortest"])
def test_a_stage_may_sample_another_model_which_gives_no_log_probs(module, pick):
    config = RewriteConfig.model_validate(
        {"stages": [own("Teacher", name="teacher", waves=[2]), {"kind": "expert"}], "pick": pick}
    )
    prompts = CharacterPrompts()
    stages = open_stages(config.stages, prompts)
    policy = ScriptedSampler(lambda prompt, n: "no", prompts.response, lambda ids: "".join(map(chr, ids)))
    done = asyncio.run(
        rewrite(
            Problem("id", "what", "\\boxed{7}", "7"),
            prompts=prompts,
            stages=stages,
            sampler=policy,
            verifier=verify,
            settings=cascade_settings(config, 200),
        )
    )
    assert (done.source, policy.calls, done.behavior_logprobs) == ("teacher", 0, None)
    # Although its prompt is the plain one, its log-probs would not be the policy's.
    assert done.policy_logprobs == scripted_logprobs(done.prompt_ids, done.response_ids)
    assert stages["teacher"].finished_sources[-1] == "teacher"


def test_stages_run_in_the_order_of_the_list():
    stages = [{"kind": "guided", "waves": [1]}, {"kind": "self", "waves": [1]}, {"kind": "expert"}]
    done, _ = run(lambda prompt, n: "no", stages=stages)
    assert [attempt.stage for attempt in done.attempts] == ["guided", "self"]


def test_one_kind_may_stand_twice_under_two_names():
    stages = [{"kind": "self", "waves": [1]}, {"kind": "self", "name": "again", "waves": [2]}, {"kind": "expert"}]
    done, _ = run(lambda prompt, n: "\\boxed{7}" if n else "no", stages=stages)
    assert (done.source, [attempt.stage for attempt in done.attempts]) == ("again", ["self", "again", "again"])
    assert done.behavior_logprobs == done.policy_logprobs


def test_what_no_stage_solves_keeps_nothing_where_the_expert_is_left_out():
    done, _sampler = run(lambda prompt, n: "no", stages=cascade()[:-1], expert="none")
    assert (done.source, done.response, done.response_ids, done.policy_logprobs) == ("unsolved", "", [], [])
    assert (done.behavior_logprobs, done.mean_logprob) == (None, None)
    assert len(done.expert_logprobs) == len(done.expert_ids) > 0
    assert len(done.attempts) == 6
    row = rewrite_row(done, verifier="", policy="", prompt_version="")
    assert row.keys() == set(REWRITE_SCHEMA.names)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (own("Prefix", shares="all"), r"rewrite\.stages\.Prefix\.shares='all': input should be a valid list"),
        (
            own("Prefix", share=[1]),
            r"rewrite\.stages\.Prefix\.share=\[1\]: .* did you mean rewrite\.stages\.Prefix\.shares\?",
        ),
        (own("Refine", shown=1), r"rewrite\.stages\.Refine\.shown=1: there is no such setting"),
        (own("Missing"), r"rewrite\.stages\.Missing\.kind=.*: the module unknown_stages has no class Missing"),
        (own("NoStage"), r"rewrite\.stages\.NoStage\.kind=.*: NoStage does not derive from .*:Stage"),
        ({"kind": "not_there.stages:X"}, r"rewrite\.stages\.X\.kind=.*must be importable wherever an engine runs"),
    ],
)
def test_a_wrong_stage_of_ones_own_is_refused_by_name(module, stage, message):
    config = RewriteConfig.model_validate({"stages": [stage, {"kind": "expert"}]})
    with pytest.raises(ConfigError, match=message):
        check_stages(config.stages)
