"""What is trained is what the template renders: prefix, answer and end of the published forms of chat templates."""

import datetime

import pytest

from offsft.config import PromptConfig
from offsft.errors import ModelError
from offsft.prompts import Prompts
from offsft.records import Problem
from tests.unit.prompts.lookalikes import lookalike

PROBLEM = Problem("id", "What is 2 + 3?", "2 + 3 = 5", "5")


def open_prompts(name, thinking="auto", template=None, **settings):
    changes = {} if template is None else {"template": template}
    return Prompts(
        lookalike(name, **changes), PromptConfig(plain="{problem}", guided="{problem}{solution}", **settings), thinking
    )


ENDS = {
    "chatml": ("<|im_start|>assistant\n", "2 + 3 = 5<|im_end|>"),
    "qwen3": ("<|im_start|>assistant\n", "<think>\n\n</think>\n\n2 + 3 = 5<|im_end|>"),
    "qwen3-thinking": ("<|im_start|>assistant\n<think>\n", "\n</think>\n\n2 + 3 = 5<|im_end|>"),
    "deepseek-r1": ("<|Assistant|><think>\n", "\n</think>\n\n2 + 3 = 5<|end_of_sentence|>"),
    "deepseek-r1-first": ("<|Assistant|>", "2 + 3 = 5<|end_of_sentence|>"),
    "deepseek-v3.1": ("<|Assistant|></think>", "2 + 3 = 5<|end_of_sentence|>"),
    "smollm3": ("<|im_start|>assistant\n", "2 + 3 = 5<|im_end|>"),
    "llama3": ("<|start_header_id|>assistant<|end_header_id|>\n\n", "2 + 3 = 5<|eot_id|>"),
    "gemma3": ("<start_of_turn>model\n", "2 + 3 = 5<end_of_turn>"),
    "gemma": ("<start_of_turn>model\n", "2 + 3 = 5<end_of_turn>"),
    "parts": ("<|im_start|>assistant\n", "2 + 3 = 5<|im_end|>"),
    "llama2": (" [/INST]", " 2 + 3 = 5 </s>"),
    "mistral": (" [/INST]", " 2 + 3 = 5</s>"),
    "vicuna": ("ASSISTANT:", " 2 + 3 = 5</s>"),
    "phi": ("<|assistant|>\n", "2 + 3 = 5<|end|>"),
    "granite": ("<|start_of_role|>assistant<|end_of_role|>", "2 + 3 = 5<|end_of_text|>"),
    "harmony": ("<|start|>assistant", "<|channel|>final<|message|>2 + 3 = 5<|return|>"),
    "two-ends": ("<|im_start|>assistant\n", "2 + 3 = 5<|end_of_answer|><|im_end|>"),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_expert_solution_is_trained_as_the_template_renders_it(name):
    prompts = open_prompts(name)
    prompt, response = prompts.plain(PROBLEM), prompts.response(PROBLEM.solution)
    opening, answer = ENDS[name]
    assert prompts.text(prompt).endswith(opening)
    assert prompts.text(prompt).count("What is 2 + 3?") == 1
    assert prompts.text([*prompt, *response]) == prompts.text(prompt) + answer
    assert response[-1] == prompts.end_of_turn
    assert response.count(prompts.end_of_turn) == 1
    assert prompts.turn.stop_ids == (prompts.end_of_turn,)


@pytest.mark.parametrize("name", sorted(set(ENDS) - {"deepseek-r1"}))
def test_its_ids_are_those_of_the_whole_rendering(name):
    prompts = open_prompts(name)
    tokenizer = lookalike(name)
    rendered = prompts._template.answered(PROBLEM.problem, PROBLEM.solution)
    ids = [*prompts.plain(PROBLEM), *prompts.response(PROBLEM.solution)]
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"][: len(ids)] == ids


@pytest.mark.parametrize("name", ENDS)
def test_a_solution_that_imitates_control_tokens_stays_text(name):
    prompts = open_prompts(name)
    end = prompts.text([prompts.end_of_turn])
    ids = prompts.response(f"It is {end} 5")
    assert ids.count(prompts.end_of_turn) == 1
    assert prompts.plain(Problem("id", f"{end}?", "", "")).count(prompts.end_of_turn) == open_prompts(name).plain(
        PROBLEM
    ).count(prompts.end_of_turn)


def test_only_the_turn_differs_where_a_template_has_no_header_in_its_prompt():
    prompts = open_prompts(
        "chatml", template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    )
    assert prompts.turn.lead == "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "alpaca",
            r"ends an answer with '\\n### End\\n', which is no token of its own but \[.*'#'.*prompt\.template=none",
        ),
        (
            "mismatch",
            r"does not begin an answer as its prompt ends.*the prompt is '.*assistant\\n', and with an answer it is '.*bot",
        ),
        ("deaf", r"does not render the text of a turn once.*it makes '<\|im_start\|>user<\|im_end\|>"),
        ("twice", r"does not render the text of a turn once"),
        ("needs-system", r"fails on a user's turn \(a system message is required\).*set prompt\.system"),
    ],
)
def test_a_template_whose_turn_cannot_be_told_is_refused_in_one_line(name, message):
    with pytest.raises(ModelError, match=message) as refused:
        open_prompts(name)
    assert "\n" not in str(refused.value)


def test_an_end_in_words_is_trained_whole_where_an_end_token_follows_it():
    with_end = "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n{% else %}### Response:\n{{ m.content }}\n### End{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
    prompts = open_prompts("alpaca", template=with_end)
    assert prompts.text(prompts.response("5")).endswith("5\n### End</s>")
    assert prompts.text([prompts.end_of_turn]) == "</s>"


def test_an_end_of_nothing_is_the_tokenizers_end_of_sequence():
    prompts = open_prompts(
        "mistral",
        template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    )
    assert prompts.text([*prompts.plain(PROBLEM), *prompts.response("5")]).endswith("assistant: 5</s>")


def test_a_system_message_of_ones_own_is_rendered_or_refused_with_advice():
    needs = open_prompts("needs-system", system="Be brief.")
    assert "system\nBe brief.<|im_end|>" in needs.text(needs.plain(PROBLEM))
    assert "model\n" in (gemma := open_prompts("gemma3", system="Be brief.")).text(gemma.plain(PROBLEM))
    for name in ("gemma", "llama2", "mistral"):
        with pytest.raises(ModelError, match=r"takes no system message.*leave prompt\.system out") as refused:
            open_prompts(name, system="Be brief.")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("llama3", "Today Date: 03 Feb 2025"), ("granite", "February 03, 2025"), ("harmony", "2025-02-03")],
)
def test_a_date_in_a_template_is_the_settings(name, said):
    prompts = open_prompts(name, date=datetime.date(2025, 2, 3))
    assert said in prompts.text(prompts.plain(PROBLEM))
    assert prompts.template_variables == ({"date_string": "03 Feb 2025"} if name == "llama3" else {})


def test_a_model_without_a_template_gets_plain_text_and_its_own_end():
    tokenizer = lookalike("llama2")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"has no chat template.*prompt\.template=none"):
        Prompts(tokenizer, PromptConfig())
    prompts = Prompts(tokenizer, PromptConfig(template="none", plain="{problem}", system="Sums."))
    ids = [*prompts.plain(PROBLEM), *prompts.response(PROBLEM.solution)]
    assert prompts.text(ids) == "<s> Sums.\n\nWhat is 2 + 3?\n\n2 + 3 = 5</s>"
    assert ids.count(tokenizer.bos_token_id) == 1
    assert prompts.end_of_turn == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="needs a token that ends a response"):
        Prompts(tokenizer, PromptConfig(template="none"))


SWITCHED = """{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.replace('/no_think', '') if m.role == 'system' else m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{{ '<think></think>' if '/no_think' in messages[0].content else '' }}{% endif %}"""


def test_a_template_that_reads_a_word_of_the_systems_turn_as_a_switch_is_no_template_without_one():
    prompts = open_prompts("chatml", template=SWITCHED, system="Be brief.")
    assert "Be brief." in prompts.text(prompts.plain(PROBLEM))
