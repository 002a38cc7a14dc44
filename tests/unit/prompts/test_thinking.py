"""Thinking models: the template's switch, thoughts told apart from answers, and what an expert solution follows."""

import pytest

from offsft.config import PromptConfig
from offsft.errors import ModelError
from offsft.prompts import Parts, Prompts
from offsft.records import Completion, Problem
from tests.unit.prompts.lookalikes import lookalike

PROBLEM = Problem("id", "What is 2 + 3?", "2 + 3 = 5", "5")
SETTINGS = {"plain": "{problem}", "guided": "{problem}{solution}"}
THINKING = ("qwen3", "qwen3-thinking", "deepseek-r1", "deepseek-r1-first", "deepseek-v3.1", "smollm3")


def open_prompts(name, thinking="auto", **settings):
    return Prompts(lookalike(name), PromptConfig(**SETTINGS, **settings), thinking)


@pytest.mark.parametrize(
    ("name", "thinking", "opening"),
    [
        ("qwen3", "on", "assistant\n"),
        ("qwen3", "off", "assistant\n<think>\n\n</think>\n\n"),
        ("smollm3", "on", "assistant\n"),
        ("smollm3", "off", "assistant\n<think>\n\n</think>\n"),
        ("deepseek-v3.1", "on", "<|Assistant|><think>"),
        ("deepseek-v3.1", "off", "<|Assistant|></think>"),
        ("qwen3-thinking", "on", "assistant\n<think>\n"),
        ("deepseek-r1", "on", "<|Assistant|><think>\n"),
        ("granite", "on", "assistant<|end_of_role|>"),
    ],
)
def test_the_templates_own_switch_turns_thinking_on_and_off(name, thinking, opening):
    prompts = open_prompts(name, thinking)
    text = prompts.text(prompts.plain(PROBLEM))
    assert text.endswith(opening)
    assert ("between <think></think>" in text) == (name == "granite")


@pytest.mark.parametrize(
    ("name", "thinking"),
    [("chatml", "on"), ("chatml", "off"), ("llama3", "off"), ("qwen3-thinking", "off"), ("deepseek-r1", "off")],
)
def test_a_setting_that_a_template_has_no_switch_for_is_refused(name, thinking):
    with pytest.raises(ModelError, match=f"model.thinking={thinking}: .* has no switch for thinking; leave"):
        open_prompts(name, thinking)


@pytest.mark.parametrize("thought", ["", "I know a way."])
@pytest.mark.parametrize("name", THINKING)
@pytest.mark.parametrize("thinking", ["auto", "on", "off"])
def test_an_expert_solution_is_never_inside_an_open_thought(name, thinking, thought):
    try:
        prompts = open_prompts(name, thinking, expert_thought=thought)
    except ModelError:
        return
    response = prompts.response(PROBLEM.solution)
    text = prompts.text([*prompts.plain(PROBLEM), *response])
    assert text.count("<think>") - text.count("</think>") in (0, -1)  # DeepSeek-V3.1 closes what it never opened
    assert text.rpartition("</think>")[2].count(PROBLEM.solution) == 1
    parts = prompts.parts(Completion(prompts._codec.decode(response, controls=False), response, None, "stop"))
    assert (parts.answer.strip(), parts.finished) == (PROBLEM.solution, True)
    closed_before = "</think>" in prompts.turn.opening
    assert parts.thought.strip() == ("" if closed_before else thought)


@pytest.mark.parametrize(
    ("name", "thinking", "response"),
    [
        ("qwen3", "auto", "<think>\nFive.\n</think>\n\nIt is 5<|im_end|>"),
        ("qwen3", "off", "It is 5<|im_end|>"),
        ("deepseek-r1", "auto", "Five.\n</think>\n\nIt is 5<|end_of_sentence|>"),
        ("chatml", "auto", "<think>Five.</think>\n\nIt is 5<|im_end|>"),
    ],
)
def test_a_solution_with_a_thought_of_its_own_keeps_it_as_one(name, thinking, response):
    prompts = open_prompts(name, thinking)
    assert (
        prompts.text(
            prompts.response(
                "<think>\nFive.\n</think>\n\nIt is 5" if name != "chatml" else "<think>Five.</think>\n\nIt is 5"
            )
        )
        == response
    )


def completion(prompts, text):
    """A completion that an engine would return: its marks are tokens, its text without control tokens."""
    ids = prompts._codec.encode(text)
    return Completion(prompts._codec.decode(ids, controls=False), ids, None, "stop")


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("qwen3", "<think>\nTwo and three.\n</think>\n\n5<|im_end|>", Parts("\nTwo and three.\n", "\n\n5", 18, True)),
        ("qwen3", "5<|im_end|>", Parts("", "5", 0, True)),
        ("qwen3", "<think>\nTwo and \\boxed{5}<|im_end|>", Parts("\nTwo and \\boxed{5}", "", 20, False)),
        ("deepseek-r1", "Hm.\n</think>\n\n5<|end_of_sentence|>", Parts("Hm.\n", "\n\n5", 5, True)),
        ("deepseek-r1", "Hm. \\boxed{5}<|end_of_sentence|>", Parts("Hm. \\boxed{5}", "", 14, False)),
        ("deepseek-r1", "</think>5<|end_of_sentence|>", Parts("", "5", 1, True)),
        ("chatml", "<think>Hm.</think>5<|im_end|>", Parts("Hm.", "5", 18, True)),
        ("llama3", "It is 5<|eot_id|>", Parts("", "It is 5", 0, True)),
    ],
)
def test_a_thought_is_told_from_an_answer(name, text, parts):
    prompts = open_prompts(name)
    assert prompts.parts(completion(prompts, text)) == parts


def test_marks_that_a_decoder_leaves_out_are_found_among_the_ids():
    tokenizer = lookalike("qwen3")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|START_THINKING|>", "<|END_THINKING|>"]})
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>", "<|START_THINKING|>").replace(
        "</think>", "<|END_THINKING|>"
    )
    prompts = Prompts(tokenizer, PromptConfig())
    found = completion(prompts, "<|START_THINKING|>\\boxed{4}<|END_THINKING|>\\boxed{5}<|im_end|>")
    assert found.text == "\\boxed{4}\\boxed{5}"
    assert prompts.parts(found).answer == "\\boxed{5}"


def test_thoughts_in_the_words_of_the_template_are_told_apart():
    template = lookalike("granite").chat_template.replace(
        "Write your thoughts between <think></think>", "Write Here is my thought process: and Here is my response:"
    )
    prompts = Prompts(lookalike("granite", template=template), PromptConfig(), "on")
    whole = completion(prompts, "Here is my thought process: 4? Here is my response: 5")
    assert (prompts.parts(whole).thought, prompts.parts(whole).answer) == (" 4? ", " 5")
    assert not prompts.parts(completion(prompts, "Here is my thought process: 4?")).finished


@pytest.mark.parametrize("name", THINKING)
def test_a_sampled_text_without_ids_becomes_the_tokens_that_it_was(name):
    prompts = open_prompts(name)
    text = "<think>\nHm, <|endoftext|>?\n</think>\n\n5"
    ids = prompts.sampled(text)
    assert prompts.text(ids) == text + prompts.text([prompts.end_of_turn])
    codec = prompts._codec
    assert [ids.count(codec.control[mark]) for mark in ("<think>", "</think>")] == [1, 1]
    assert "<|endoftext|>" not in codec.control or codec.control["<|endoftext|>"] not in ids
    assert prompts.sampled(text, ended=False) == ids[:-1]
