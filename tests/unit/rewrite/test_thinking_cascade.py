"""The cascade over models that think: what is verified, refused and trained, by templates of the published forms."""

import asyncio

import pytest

from offsft.config import PromptConfig, RewriteConfig
from offsft.evaluate.actor import _judge as judge_sample
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.prompts import Prompts
from offsft.records import Completion, Outcome, Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.stages import open_stages
from offsft.verify.math import judge
from tests.unit.prompts.lookalikes import lookalike

PROBLEM = Problem("id", "What is 2 + 3?", "Two and three are 2 + 3 = 5. \\boxed{5}", "5")
END = {"qwen3": "<|im_end|>", "qwen3-thinking": "<|im_end|>", "deepseek-r1": "<|end_of_sentence|>"}


async def verify(response, problem):
    return judge(response, problem.answer)


def run(name, responses, thinking="auto", **changes):
    """The rewrite of a problem by a model that answers with `responses`, one after the other, marks as tokens."""
    prompts = Prompts(lookalike(name), PromptConfig(), thinking)
    answers = iter(responses)
    stages = [{"kind": "self", "waves": [1]}, {"kind": "guided", "waves": [1], **changes}, {"kind": "expert"}]
    config = RewriteConfig.model_validate({"max_tokens": 300, "stages": stages, "guards": {"enabled": False}})
    sampler = ScriptedSampler(
        lambda prompt, number: next(answers),
        encode=lambda text: prompts._codec.encode(text + END[name]),
        decode=prompts.text,
    )
    done = asyncio.run(
        rewrite(
            PROBLEM,
            prompts=prompts,
            stages=open_stages(config.stages, prompts),
            sampler=sampler,
            verifier=verify,
            settings=cascade_settings(config, 2000),
        )
    )
    return done, prompts


def test_a_response_is_kept_as_sampled_with_its_thought():
    text = "<think>\nFirst \\boxed{4}? No.\n</think>\n\n2 + 3 = 5, so \\boxed{5}"
    done, prompts = run("qwen3", [text])
    assert (done.source, done.response) == ("self", text)
    assert prompts.text(done.response_ids) == text + END["qwen3"]


@pytest.mark.parametrize(
    ("name", "text", "outcome"),
    [
        ("qwen3", "<think>\n2 + 3 = 5: \\boxed{5}\n</think>\n\n\\boxed{4}", Outcome.WRONG),
        ("qwen3", "<think>\n2 + 3 = 5: \\boxed{5}", Outcome.TRUNCATED),
        ("qwen3-thinking", "2 + 3 = 5: \\boxed{5}", Outcome.TRUNCATED),
        ("deepseek-r1", "2 + 3 = 5: \\boxed{5}", Outcome.TRUNCATED),
        ("deepseek-r1", "2 + 3 = 5: \\boxed{5}\n</think>\n\nDone.", Outcome.NO_ANSWER),
        ("deepseek-r1", "2 + 3 = 5\n</think>\n\n\\boxed{5}", Outcome.CORRECT),
        ("qwen3", "2 + 3 = 5, \\boxed{5}", Outcome.CORRECT),
    ],
)
def test_only_the_answer_is_verified_in_rewriting_and_evaluation(name, text, outcome):
    done, prompts = run(name, [text, "I do not know"])
    assert done.attempts[0].outcome is outcome
    ids = prompts._codec.encode(text + END[name])
    completion = Completion(text, ids, None, "stop")
    sample = asyncio.run(judge_sample(completion, prompts.parts(completion), PROBLEM, verify))
    assert (sample["outcome"], sample["tokens"]) == (str(outcome), len(ids))


def test_a_long_thought_does_not_make_up_for_a_bare_answer():
    thought = "2 + 3 = 5, as I see. " * 5
    done, _ = run("deepseek-r1", ["no", f"{thought}\n</think>\n\n\\boxed{{5}}"], min_share=0.5)
    assert [attempt.outcome for attempt in done.attempts] == [Outcome.TRUNCATED, Outcome.BARE]
    done, _ = run("deepseek-r1", ["no", f"Hm.\n</think>\n\n{thought} \\boxed{{5}}"], min_share=0.5)
    assert done.source == "guided"


@pytest.mark.parametrize(
    ("name", "thinking", "row"),
    [
        ("qwen3", "auto", "<|im_start|>assistant\n<think>\n\n</think>\n\n{solution}<|im_end|>"),
        ("qwen3", "off", "<|im_start|>assistant\n<think>\n\n</think>\n\n{solution}<|im_end|>"),
        ("qwen3-thinking", "auto", "<|im_start|>assistant\n<think>\n\n</think>\n\n{solution}<|im_end|>"),
        ("deepseek-r1", "auto", "<|Assistant|><think>\n\n</think>\n\n{solution}<|end_of_sentence|>"),
    ],
)
def test_an_experts_row_is_trained_behind_a_closed_thought(name, thinking, row):
    done, prompts = run(name, ["no", "no"], thinking)
    assert done.source == "expert"
    text = prompts.text([*done.prompt_ids, *done.response_ids])
    assert text.endswith(row.replace("{solution}", PROBLEM.solution))
    assert done.response_ids == done.expert_ids
