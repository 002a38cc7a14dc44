"""The place of a response's final answer: published prompt formats, distractors, thoughts, boxes that join."""

import pytest

from offsft.verify.answer import final_answer, located_answer
from offsft.verify.thoughts import without_thoughts


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        # The published prompt format, with an answer filled in.
        ("Please reason step by step. So we get $\\boxed{42}$.", "42"),
        ("48/2 = <<48/2=24>>24\n#### 24", "24"),
        ("Final Answer: The final answer is $3x+1$. I hope it is correct.", "3x+1"),
        ("## Step 3: Add\n5\n\nThe final answer is: $\\boxed{9}$. I hope it is correct.", "9"),
        ("So she pays 18 dollars. The answer is 18.", "18"),
        ("Explanation...\n\nAnswer: 72", "72"),
        ("ANSWER: 72", "72"),
        ("**Answer**: 72", "72"),
        ("**Answer:** $72$", "72"),
        ("### Answer\n72", "72"),
        ("**Final Answer**\n\n$72$", "72"),
        ("<reasoning>\nadd\n</reasoning>\n<answer>\n72\n</answer>", "72"),
        ("<think>2*36</think><answer>72</answer>", "72"),
        ("<answer>The answer is \\boxed{72}.</answer>", "72"),
        ("<final_answer>72</final_answer>", "72"),
        ("[ANSWER]72[/ANSWER]", "72"),
        ("<|begin_of_box|>72<|end_of_box|>", "72"),
        ("<|begin_of_thought|>\\boxed{5}<|end_of_thought|><|begin_of_solution|>\\boxed{72}<|end_of_solution|>", "72"),
        ('{"reasoning": "36 twice", "answer": 72}', "72"),
        ('```json\n{"answer": "\\\\frac{1}{2}"}\n```', "\\frac{1}{2}"),
        ("The answer is:\n\\[\n\\frac{3}{4}\n\\]", "\\frac{3}{4}"),
        ("Therefore the answer is\n$$\n\\frac{3}{4}.\n$$\nDone.", "\\frac{3}{4}"),
        ("Adding up, we obtain\n\\[\n\\frac{3}{4}\n\\]", "\\frac{3}{4}"),
        ("We add both.\n\n**72**", "72"),
        ("\\boxed{**72**}", "72"),
        ("\\framebox{72}", "72"),
        ("The answer turns out to be 72.", "72"),
        ("The answer (in dollars) is 72.", "72"),
        ("The answer is 72<|im_end|>", "72"),
        ("Ans. 72", "72"),
        ("Ans = 72", "72"),
        ("Answer\n72", "72"),
        ("The correct answer is 72, not 36.", "72"),
        ("The answer is 72. If she had half as many, the answer would be 36.", "72"),
        ("The answer would be 72.", "72"),
        ("\\boxed{\\text{answer: }72}", "72"),
        ("\\boxed{\\text{The answer is 72}}", "72"),
        ("So $x = -\\boxed{72}$.", "-72"),
        ("The rest - \\boxed{72}", "72"),
    ],
)
def test_each_published_form_of_an_answer_is_found(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    "response",
    [
        "答案：72",
        "因此，最终答案是 72。",
        "所以答案为72。",
        "答え：72",
        "答えは72です。",
        "정답: 72",
        "정답은 72입니다.",
        "Antwort: 72",
        "Het antwoord is 72.",
        "Die Antwort ist 72.",
        "Réponse : 72",
        "La réponse finale est 72.",
        "Respuesta: 72",
        "La respuesta es 72.",
        "Resposta: 72",
        "A resposta é 72.",
        "La risposta è 72.",
        "Ответ: 72",
        "Odpowiedź: 72",
        "Jibu: 72",
        "Đáp án: 72",
        "উত্তর: 72",
        "उत्तर: 72",
        "సమాధానం: 72",
        "คำตอบ: 72",
        "الإجابة: 72",
        "**Respuesta:** 72",
    ],
)
def test_an_answer_in_another_language_is_found(response):
    assert final_answer(response) == "72"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Final Answer: The maximum number of points is 19.", "19"),
        ("Answer: The two numbers are 3 and 5.", "3 and 5"),
        ("Answer: There are 12 eggs.", "12 eggs"),
        ("Answer: She made $70,000 in profit.", "70,000 in profit"),
        ("Answer: The line is y = 2x.", "y = 2x"),
        ("Answer: The capital is Paris.", "Paris"),
        ("Answer: The claim is not proved.", "The claim is not proved"),
        ("Answer: m+n = 256+37 = 293", "m+n = 256+37 = 293"),
    ],
)
def test_of_a_sentence_the_value_at_its_end_is_the_answer(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>\\boxed{5}? No.</think>\nThe answer is 7.", "7"),
        ("\\boxed{5} is what I thought.</think>\\boxed{7}", "7"),
        ("<think>a</think>Hm.<think>\\boxed{5}</think> Answer: 7", "7"),
        ("<thinking>\\boxed{5}</thinking>\\boxed{7}", "7"),
        ("◁think▷\\boxed{5}◁/think▷\\boxed{7}", "7"),
        ("[THINK]\\boxed{5}[/THINK]\\boxed{7}", "7"),
        ("<|channel|>analysis<|message|>\\boxed{5}<|end|><|start|>assistant<|channel|>final<|message|>\\boxed{7}", "7"),
        ("I write `<think>` into \\boxed{7}", "7"),
        ("<think>I get \\boxed{5} but must check", None),
        ("So \\boxed{5}.\n<think>Is it", None),
        ("<think>The answer is 5.</think>", None),
        ("<think>The answer is 5.</think>\nSo I have thought about it.", None),
    ],
)
def test_what_is_only_thought_is_no_answer(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("First \\boxed{3} eggs. The rest is 7.\nThe answer is 7.", "7"),
        ("The answer is 3. Wait: \\boxed{7}", "7"),
        ("\\boxed{3}\n#### 7", "7"),
        ("#### 3\nNo. <answer>7</answer>", "7"),
        ("<answer>3</answer> I was wrong, the answer is 7.", "7"),
    ],
)
def test_the_last_mark_counts_of_whatever_kind_it_is(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    "chatter",
    [
        "I hope this answer is clear.",
        "I used \\boxed{} as required.",
        "I put it into \\boxed{...} as asked.",
        "As you wanted: \\boxed{your answer}",
        "The answer is the number of apples.",
        "The answer is in dollars.",
        "The answer is rounded to 2 decimal places.",
        "Note that the answer is not 6.",
        "Let me check whether the answer is 6, as 6/2 = 3.",
        "If the answer is 6, then half of it is 3.",
        "<answer></answer>",
        "The answer is correct, since 3 + 4 = 7.",
        "My answer is as follows.",
        "The answer is: see above.",
    ],
)
@pytest.mark.parametrize("marked", ["So \\boxed{7}.", "#### 7", "The answer is 7.", "<answer>7</answer>"])
def test_chatter_after_an_answer_does_not_replace_it(marked, chatter):
    assert final_answer(f"{marked}\n\n{chatter}") == "7"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The answer is blue.", "blue"),
        ("The answer is the number of apples.", "the number of apples"),
        ("The answer is Paris.", "Paris"),
        ("\\boxed{3} apples of \\boxed{7}: the answer is yes.", "yes"),
        ("First \\boxed{3}. The answer is seven.", "seven"),
    ],
)
def test_words_are_an_answer_where_nothing_better_is_marked(response, answer):
    assert final_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\[ \\boxed{(2, 2)} \\quad \\text{and} \\quad \\boxed{(6, 2)} \\]", "(2, 2), (6, 2)"),
        ("They are \\(\\boxed{3}\\) and \\(\\boxed{5}\\).", "3, 5"),
        ("$\\boxed{k = 45} \\quad \\text{and} \\quad \\boxed{n = 2}$", "k = 45, n = 2"),
        ("$x = \\boxed{3}$, $y = \\boxed{3}$", "3, 3"),
        ("$\\boxed{3}\\ \\text{or}\\ \\boxed{5}$", "3, 5"),
        ("\\boxed{3}\\qquad\\boxed{5}", "3, 5"),
        ("\\boxed{3} und \\boxed{5}", "3, 5"),
        ("\\(\\boxed{3}\\)、\\(\\boxed{5}\\)", "3, 5"),
        ("(a) \\boxed{3}\n\n(b) \\boxed{5}", "3, 5"),
        ("\\boxed{3}, \\boxed{4}, and \\boxed{5}", "3, 4, 5"),
        ("\\boxed{3} and again \\boxed{3}", "3"),
        ("\\boxed{3}. Then \\boxed{5}", "5"),
        ("\\boxed{3} yields $x = \\boxed{5}$", "5"),
        ("\\boxed{3}\n\n\\boxed{5}", "5"),
    ],
)
def test_boxes_that_belong_together_are_one_answer(response, answer):
    assert final_answer(response) == answer


def test_where_an_answer_stood_is_said():
    assert located_answer("\\boxed{7}") == ("7", "box")
    assert located_answer("The answer is 7.") == ("7", "statement")
    assert located_answer("<answer>7</answer>") == ("7", "tag")
    assert located_answer('{"answer": 7}') == ("7", "field")
    assert located_answer("So\n\\[ x = 7 \\]") == ("x = 7", "display")
    assert located_answer("So\n**7**") == ("7", "bold line")
    assert located_answer("7") == ("7", "whole response")
    assert located_answer("<think>6 or 7?</think>\n\n$x = 7$.") == ("$x = 7$", "whole response")


@pytest.mark.parametrize(
    "response", ["There are 7", "3 + 4 = 7", "7. First, add.", "Step 7", "7 or so, I think it was", "seven"]
)
def test_a_response_that_is_more_or_less_than_a_value_states_none(response):
    assert located_answer(response) == (None, "")


@pytest.mark.parametrize(
    "unit", ["<think>", "</think>", "<answer>", "\\[", "$$", "**", "**a\n", "The answer is ", "答案", '"answer": "', "\\boxed{", "Answer\n", "#"]
)  # fmt: skip
def test_a_long_response_of_any_mark_is_searched_in_one_walk(unit):
    response = unit * (1_000_000 // len(unit))
    final_answer(response)  # would take hours if each mark searched all the rest
    without_thoughts(response)
