"""Waves keep the problems that a fixed number of samples keeps, for fewer tokens; giving up only saves more of both."""

import asyncio

import pytest

from benchmarks.byte_tokenizer import byte_tokenizer
from benchmarks.rewrite_cost import ScriptedEngine, run_fixed, run_waves
from offsft.config import PromptConfig
from offsft.prompts import load_prompts
from offsft.records import Problem

PROBLEMS = [Problem(str(i), f"What is {i} + 0?", f"{i} + 0 = \\boxed{{{i}}}", str(i)) for i in range(30)]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    return load_prompts(str(folder), None, PromptConfig(), "auto")


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_the_same_problems_for_fewer_tokens(prompts, rate):
    waves = asyncio.run(run_waves(ScriptedEngine(prompts, rate, 0.0), PROBLEMS))
    fixed = asyncio.run(run_fixed(ScriptedEngine(prompts, rate, 0.0), PROBLEMS))
    assert waves.accepted == fixed.accepted
    assert waves.tokens < fixed.tokens


def test_giving_up_saves_tokens_and_only_loses_problems(prompts):
    patient = asyncio.run(run_waves(ScriptedEngine(prompts, 0.05, 0.0), PROBLEMS))
    early = asyncio.run(run_waves(ScriptedEngine(prompts, 0.05, 0.0), PROBLEMS, give_up=0.05))
    assert early.tokens < patient.tokens
    assert early.accepted <= patient.accepted
