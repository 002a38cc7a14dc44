"""The choice that a response makes: distractors that are only mentioned, any letter formatting, other languages."""

import pytest

from offsft.config import VerifyConfig
from offsft.records import Outcome, Problem
from offsft.verify.choice import ChoiceJudge, chosen_letter

CHOICES = ["a car moves", "a safe choice", "the sun", "none of the above"]


@pytest.mark.parametrize(
    "response",
    [
        "**Answer: D**\n\n- Option A is wrong because it moves.\n- Option B is wrong.\n- Option C is wrong.",
        "The answer is D.\nOption A: a car moves, which is not asked.\nChoice B would need proof.",
        "The correct option is (D). Option C looks right at first.",
        "I choose D. Choice A is tempting, and so is choice B.",
        "Answer: D\n\nWhy not option B? It is unsafe.",
        "\\boxed{D}\n\nOption B is a common distractor.",
        "Option D is correct. Option A is not correct. B is not the answer.",
        "D is the correct answer; A is incorrect.",
    ],
)
def test_a_distractor_that_is_named_after_the_answer_is_no_choice(response):
    assert chosen_letter(response, CHOICES)[0] == "D"


@pytest.mark.parametrize(
    "response",
    [
        "So $\\boxed{\\langle H\\rangle \\ll \\Delta E}$ holds.\n\n**Answer: D**",
        "**Answer: D**, because $\\boxed{x = 3}$.",
        "<think>Answer: A</think>\nAnswer: D",
        "Answer: A\nNo, wait.\nAnswer: D",
        "\\boxed{A}? No. The answer is D.",
        "D\n\nExplanation: A does not apply.",
        "(D)\n\nBecause of the above.",
        "**D**\n\nAll others fail.",
        "D. none of the above",
        "\\boxed{\\text{Option D}}",
        "\\boxed{\\textbf{(D)}}",
        "\\boxed{\\mathrm{D}}",
        "\\boxed{D}",
        "\\boxed{\\text{D. none of the above}}",
        "\\boxed{\\text{none of the above}}",
        "<answer>D</answer>",
        "<answer>Option D</answer>",
        "The final answer is **(D) none of the above**.",
        "### Final Answer\nD",
        "My choice is D.",
        "I'll go with D.",
        "Therefore, we select (D).",
        "So option D must be correct.",
        "The best choice is $\\text{(D)}$.",
        "The answer is option D",
        '{"answer": "D"}',
        "Ans: D",
        "It can't be A. It can't be B. Answer D.",
        "Final answer - D",
        "A, B and C are all wrong, so D.",
        "The answer isn't A; it's D.",
        "D is correct. A would be correct if the sun were a car.",
    ],
)
def test_a_choice_is_found_in_any_dress(response):
    assert chosen_letter(response, CHOICES)[0] == "D"


@pytest.mark.parametrize(
    "response",
    ["答案：D", "答案是 D。", "因此选D", "故选：D", "正确答案为（D）", "正解はDです", "정답은 D입니다", "정답: D", "Antwort: D", "La réponse est D.", "La respuesta es (D).",
     "Resposta: D", "Risposta: D", "Ответ: D", "La opción correcta es D"],
)  # fmt: skip
def test_a_choice_in_another_language_is_found(response):
    assert chosen_letter(response, CHOICES)[0] == "D"


@pytest.mark.parametrize(
    "response",
    ["Option A is wrong, and so is option B.", "The answer is not D.", "D is not correct.", "I would not choose D.", "A cat sat.", "\\boxed{x^2}", "<think>Answer: D", "Is D correct?\nI do not know.", "Answer: A or D", "\\boxed{A, D}", "A and D"],
)  # fmt: skip
def test_a_letter_that_is_not_chosen_is_no_answer(response):
    assert chosen_letter(response, CHOICES)[0] is None


def test_a_letter_outside_the_choices_is_passed_over():
    assert chosen_letter("Answer: B\n\nThe answer is E.", CHOICES)[0] == "B"
    assert chosen_letter("The answer is J.", [f"o{number}" for number in range(10)])[0] == "J"


def test_the_reference_is_a_letter_of_the_choices():
    verdict = ChoiceJudge(VerifyConfig())("Answer: A", Problem("", "", "", "2", {"choices": CHOICES}))
    assert verdict.outcome is Outcome.ERROR
    assert "'2' is not the letter of a choice" in verdict.why


@pytest.mark.parametrize(
    "answer", ["D", "d", "(D)", "D.", "D) none of the above", "\\text{D}", "none of the above", "Option D"]
)
@pytest.mark.parametrize(
    "choices", [CHOICES, {"label": list("ABCD"), "text": CHOICES}, [{"text": text} for text in CHOICES]]
)
def test_the_reference_is_read_in_any_dress(answer, choices):
    judge = ChoiceJudge(VerifyConfig())
    assert judge("Answer: D", Problem("", "", "", answer, {"choices": choices})).outcome is Outcome.CORRECT
    assert judge("Answer: A", Problem("", "", "", answer, {"choices": choices})).outcome is Outcome.WRONG
