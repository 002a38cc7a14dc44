"""The cost of a request, bounded before an engine sees it."""

from types import SimpleNamespace

import pytest

from services.cost import openai_cost
from services.errors import ApiError
from services.settings import Limits

CONTEXT = 385


def completion(**more):
    fields = {"prompt": "a" * 300, "n": 1, "max_tokens": 2, "logprobs": None, "prompt_logprobs": None, "echo": False}
    return SimpleNamespace(**fields | more)


def chat(**more):
    message = {"role": "user", "content": "a" * 100}
    fields = {"messages": [message], "n": 1, "max_tokens": 2, "logprobs": False, "top_logprobs": 0}
    return SimpleNamespace(**fields | {"prompt_logprobs": None} | more)


def test_a_prompts_log_probs_are_counted_once_for_the_engine_and_for_each_choice_in_the_answer():
    cost = openai_cost(completion(echo=True, logprobs=1, n=4), Limits(), CONTEXT)
    assert (cost.sequences, cost.scored_tokens, cost.sampled_tokens) == (4, 300, 8)
    assert cost.logprobs == 300 * 4 * 2 + 8 * 2
    assert openai_cost(completion(prompt=[[1] * 9, [2] * 5]), Limits(), CONTEXT).prompt_tokens == 14
    assert openai_cost(completion(prompt="a" * 9000), Limits(), CONTEXT).prompt_tokens == CONTEXT


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (completion(echo=True, logprobs=20, n=16, prompt="a" * 1600), "logprobs"),
        (completion(prompt=["a"] * 9, n=2), "n"),
        (completion(max_tokens=2000), "max_tokens"),
        (completion(prompt_logprobs=0, prompt=["a" * 400] * 16, n=1), None),
        (chat(n=17), "n"),
        (chat(max_completion_tokens=5000), "max_tokens"),
        (chat(logprobs=True, top_logprobs=20, n=16, max_tokens=300), "logprobs"),
        (chat(tools=[{"function": {"description": "x" * 70_000}}]), "structured_outputs"),
        (chat(response_format={"json_schema": {"enum": ["word"] * 20_000}}), "structured_outputs"),
        (completion(structured_outputs=SimpleNamespace(choice=["a" * 10] * 9_000)), "structured_outputs"),
    ],
)
def test_a_figure_beyond_its_limit_is_refused_with_both(body, param):
    if param is None:
        assert openai_cost(body, Limits(), CONTEXT).scored_tokens == 16 * CONTEXT
        return
    with pytest.raises(ApiError, match=f"{param} comes to .*, and the limit is") as caught:
        openai_cost(body, Limits(), CONTEXT)
    assert caught.value.param == param


def test_scored_tokens_have_a_limit_of_their_own():
    with pytest.raises(ApiError, match=r"echo comes to 385, and the limit is 100 \(limits\.scored_tokens\)"):
        openai_cost(completion(echo=True, logprobs=0, prompt="a" * 999), Limits(scored_tokens=100), CONTEXT)
