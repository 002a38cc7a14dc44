"""A budget for the thought: cut where it is open, continued to the same response where it is not."""

import asyncio

import pytest

from offsft.config import PromptConfig, Recipe
from offsft.errors import ConfigError
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.inference.thought_budget import with_thought_budget
from offsft.prompts import Prompts
from offsft.protocols import SamplingParams
from offsft.records import Completion, Problem
from tests.unit.prompts.lookalikes import lookalike

PROBLEM = Problem("id", "What is 2 + 3?", "5", "5")


class Engine:
    """Writes one response from wherever a prompt leaves off; the log-prob of a token is its place in the sequence."""

    def __init__(self, prompts, prompt, text):
        self.prompts, self.prompt, self.whole = prompts, prompt, prompts._codec.encode(text)
        self.sampled_tokens = 0

    async def sample(self, prompt_ids, *, n, params):
        begun = prompt_ids[len(self.prompt) :]
        assert prompt_ids == self.prompt + self.whole[: len(begun)]
        ids = self.whole[len(begun) : len(begun) + params.max_tokens]
        self.sampled_tokens += n * len(ids)
        logprobs = [-float(len(prompt_ids) + place) for place in range(len(ids))]
        reason = "stop" if ids[-1] == self.prompts.end_of_turn else "length"
        return [Completion(self.prompts.text(ids, controls=False), ids, logprobs, reason) for _ in range(n)]


def sampled(name, text, budget, max_tokens=100):
    prompts = Prompts(lookalike(name), PromptConfig())
    prompt = prompts.plain(PROBLEM)
    engine = Engine(prompts, prompt, text)
    params = SamplingParams(max_tokens)
    whole = asyncio.run(engine.sample(prompt, n=2, params=params))
    engine.sampled_tokens = 0
    bounded = asyncio.run(with_thought_budget(engine, prompts, budget).sample(prompt, n=2, params=params))
    return whole, bounded, engine.sampled_tokens, prompts


@pytest.mark.parametrize("budget", [None, 12, 20, 60])
@pytest.mark.parametrize("max_tokens", [100, 30])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3", "<think>\nHm 🧮.\n</think>\n\nIt is \\boxed{5}.<|im_end|>"),
        ("deepseek-r1", "Hm.\n</think>\n\nIt is 🧮🧮🧮 \\boxed{5}.<|end_of_sentence|>"),
        ("chatml", "There was never a thought. \\boxed{5}<|im_end|>"),
    ],
)
def test_a_thought_within_its_budget_changes_nothing(name, text, budget, max_tokens):
    whole, bounded, tokens, _ = sampled(name, text, budget, max_tokens)
    assert bounded == whole
    assert tokens == sum(len(each.token_ids) for each in whole)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3", "<think>\nHm, hm, hm, hm.\n</think>\n\n\\boxed{5}<|im_end|>"),
        ("deepseek-r1", "Hm, hm, hm, hm.\n</think>\n\n\\boxed{5}<|end_of_sentence|>"),
    ],
)
def test_a_longer_thought_ends_at_its_budget_unfinished(name, text):
    _, bounded, tokens, prompts = sampled(name, text, budget=10)
    assert tokens == 20
    assert [(len(each.token_ids), each.finished, prompts.parts(each).finished) for each in bounded] == [
        (10, False, False)
    ] * 2


def test_a_budget_without_room_for_an_answer_is_refused():
    with pytest.raises(ConfigError, match=r"rewrite\.max_tokens=256 leaves no room for an answer.*thinking_tokens=256"):
        Recipe.model_validate({"run": "x", "model": {"thinking_tokens": 256}, "evaluate": {"max_tokens": 512}})


def test_scores_pass_through():
    sampler = ScriptedSampler(lambda prompt, n: "", encode=list, decode=str)
    assert len(asyncio.run(with_thought_budget(sampler, None, 5).score([1], [2, 3]))) == 2
