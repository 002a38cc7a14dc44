"""A model whose positions end where the recipe's context does: the engine starts, and its longest row is scored."""

import asyncio
import sys

import psutil
import pytest

from offsft.config import Recipe
from offsft.errors import EngineError
from offsft.inference.engines import open_engine
from offsft.inference.engines.base import engine_setup
from offsft.inference.thought_budget import with_thought_budget
from offsft.models import scored_tokens
from offsft.prompts import load_prompts
from offsft.protocols import SamplingParams

pytestmark = pytest.mark.e2e
POSITIONS = 128
PROMPTS = (40, 97, 110)
"""Tokens of the prompts of one row that is scored."""


@pytest.fixture(scope="module")
def short_model(tmp_path_factory) -> str:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.byte_tokenizer import byte_tokenizer

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("short-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def setup_of(model, context_tokens):
    recipe = Recipe.model_validate(
        {
            "run": "runs/test",
            "model": {"path": model, "dtype": "float32", "context_tokens": context_tokens},
            "rewrite": {"max_tokens": 32},
            "evaluate": {"max_tokens": 32},
            "engine": {
                "kv_cache_gib": 1,
                "max_sequences": 4,
                "args": {"max_num_batched_tokens": 256, "block_size": 32},
            },
        }
    )
    return recipe, engine_setup(recipe, model, raw_distribution=True)


def test_the_longest_row_of_a_full_context_is_scored_as_the_model_itself_does(short_model):
    import torch
    from transformers import AutoModelForCausalLM

    recipe, setup = setup_of(short_model, POSITIONS)
    longest = scored_tokens(short_model, None, POSITIONS)
    assert longest == POSITIONS - 1
    prompts = load_prompts(short_model, None, recipe.prompt, recipe.model.thinking)
    sampler = open_engine(setup, prompts)
    bounded = with_thought_budget(sampler, prompts, 3)
    ids = [(7 * i) % 200 + 3 for i in range(longest)]
    if sys.platform == "linux":
        titles = [" ".join(child.cmdline()).strip() for child in psutil.Process().children(recursive=True)]
        # The core runs the model itself.
        assert [title for title in titles if title.startswith("VLLM::")] == ["VLLM::EngineCore"]

    async def ask():
        full = await sampler.sample(ids[: POSITIONS - 8], n=1, params=SamplingParams(8, temperature=0.0))
        # The engine now has 96 tokens in its cache: part of the first response, and of the last two only the prompt.
        found = [await sampler.score(ids[:prompt], ids[prompt:]) for prompt in PROMPTS]
        # In two calls, with a budget for the thought: the log-probs are those of one.
        joined = await bounded.sample(ids[:40], n=2, params=SamplingParams(8))
        return found, full[0], [(each, await sampler.score(ids[:40], each.token_ids)) for each in joined]

    try:
        found, full, joined = asyncio.run(ask())
    finally:
        sampler.close()
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(short_model, dtype=torch.float32)(torch.tensor([ids])).logits[0]
    expected = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    for prompt, logprobs in zip(PROMPTS, found, strict=True):
        assert logprobs == pytest.approx(expected[prompt - 1 :], abs=2e-4), prompt
    assert 1 <= len(full.token_ids) <= 8
    for each, logprobs in joined:
        assert len(each.token_ids) == 8 or each.finished
        assert each.logprobs == pytest.approx(logprobs, abs=2e-4)
        assert each.text == prompts.text(each.token_ids, controls=False)


def test_a_context_beyond_the_positions_is_refused_with_both_figures(short_model):
    recipe, setup = setup_of(short_model, POSITIONS + 1)
    with pytest.raises(EngineError, match=rf"context_tokens={POSITIONS + 1} is beyond the {POSITIONS} positions"):
        open_engine(setup, load_prompts(short_model, None, recipe.prompt, recipe.model.thinking))
