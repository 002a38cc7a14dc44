"""A solution is shown without its answer, however the answer is written, and with everything else as it stands."""

import pytest

from offsft.records import Problem
from offsft.verify.mentions import before_answer, without_answer


def masked(solution, answer, problem="What is it?", **check):
    return without_answer(solution, Problem("id", problem, solution, answer, check))


@pytest.mark.parametrize(
    ("solution", "answer", "shown"),
    [
        ("3 * 4 = 12. \\boxed{12}", "12", "3 * 4 = [...]. [...]"),
        ("3 * 4 = 12\n#### 12", "12", "3 * 4 = [...]\n#### [...]"),
        ("It is 3 * 4 pens. The answer is 12.", "12", "It is 3 * 4 pens. The answer is [...]."),
        ("3 * 4 = 12. So Mia has 12 pens.", "12", "3 * 4 = [...]. So Mia has [...] pens."),
        ("She needs twelve pens, 3 * 4.", "12", "She needs [...] pens, 3 * 4."),
        ("A dozen pens, since 3 * 4 = 12.0", "12", "[...] pens, since 3 * 4 = [...]"),
        ("1,000 + 234 = 1,234, that is 1234 or $1{,}234$.", "1234", "1,000 + 234 = [...], that is [...] or $[...]$."),
        ("1\u202f234 = 1000 + 234, hence $1 234", "1234", "[...] = 1000 + 234, hence $[...]"),
        ("Half of 5: 5/2 = 2.5 = \\frac{5}{2} = 2\\frac12 = 2½", "\\frac{5}{2}", "Half of 5: [...] = [...] = [...] = [...] = [...]"),
        ("As 1 - 1/4, 3/4 of it is 75\\%, or 0.75. \\boxed{\\dfrac34}", "\\frac{3}{4}", "As 1 - 1/4, [...] of it is [...]\\%, or [...]. [...]"),
        ("48/2 = 24 in May. <answer>24</answer>", "24", "48/2 = [...] in May. <answer>[...]</answer>"),
        ("2 * 3 million = 6,000,000, so $6 million", "6000000", "2 * 3 million = [...], so $[...]"),
        ("It falls: 2 - 5 = -3, minus 3.", "-3", "It falls: 2 - 5 = [...], minus [...]."),
        ("4.5 \\times 10^{3} from 9000/2 = 4500", "4500", "[...] from 9000/2 = [...]"),
        ("100/3 = 33.3333, about 33.33", "33.33", "100/3 = [...], [...]"),
        ('Working: 6 + 6. {"answer": 12}', "12", 'Working: 6 + 6. {"answer": [...]}'),
        ("So 6 + 6 = 12.\n**Final Answer**\n12", "12", "So 6 + 6 = [...].\n**Final Answer**\n[...]"),
    ],
)  # fmt: skip
def test_a_number_is_hidden_in_every_notation(solution, answer, shown):
    assert masked(solution, answer) == shown


@pytest.mark.parametrize(
    ("solution", "answer", "gone"),
    [
        ("The area of the triangle is $A = \\frac{\\sqrt 3}{2}$. \\boxed{\\frac{\\sqrt{3}}{2}}", "\\frac{\\sqrt{3}}{2}", "sqrt"),
        ("The area $A$ of it is $\\sqrt{3}/2$, and thus \\boxed{\\frac{\\sqrt{3}}{2}}.", "\\frac{\\sqrt{3}}{2}", "sqrt"),
        ("Thales gives $x = 1$ and $y = 2$, so $(x, y) = (1, 2)$. \\boxed{(1,2)}", "(1, 2)", "1"),
        ("From the two lines x = 7, y = 9. The answer is x = 7, y = 9", "x = 7, y = 9", "7"),
        ("The capital of this country is Paris. Answer: paris", "Paris", "aris"),
        ("The roots lie in $\\left[ -2, 7 \\right]$, so $x \\in [-2,7]$. \\boxed{[-2,7]}", "[-2,7]", "7"),
        ("Expanding it: $(x+1)^2 = x^{2} + 2x + 1$. \\boxed{x^2+2x+1}", "x^2+2x+1", "2x"),
        ("It starts at 2:15 and lasts 90 minutes: it is 3:45. Answer: 3:45 PM", "3:45 PM", "3:45"),
        ("By the lemma it is $2\\sqrt{3}$, about 3.46, of the height. \\boxed{2\\sqrt{3}}", "2\\sqrt{3}", "3.46"),
        ("We choose option B. The answer is (B).", "B", "B"),
        ("El resultado de sumar es 12. La respuesta es 12.", "12", "12"),
        ("我们计算 3*4 得到 12。答案是 12。", "12", "12"),
    ],
)  # fmt: skip
def test_other_answers_are_hidden_however_they_are_typeset(solution, answer, gone):
    shown = masked(solution, answer)
    assert shown is not None
    assert gone not in shown


def test_the_text_of_the_right_choice_is_hidden_with_its_letter():
    problem = "3 * 4?\nA. 10\nB. 12"
    shown = masked("3 * 4 = 12, which is B. \\boxed{B}", "B", problem, choices=["10", "12"])
    assert shown == "3 * 4 = [...], which is [...] [...]"


def test_a_value_that_the_problem_gives_is_hidden_where_it_is_a_result():
    problem = "Each of 5 boxes holds 2 pens, and half of the pens are red. How many are red?"
    solution = "Step 1: 5 boxes of 2: 5 * 2 = 10.\nStep 5: 10 / 2 = 5.\nSo 5 pens are red, five in all. \\boxed{5}"
    shown = "Step 1: 5 boxes of 2: 5 * 2 = 10.\nStep 5: 10 / 2 = [...].\nSo [...] pens are red, [...] in all. [...]"
    assert masked(solution, "5", problem) == shown


@pytest.mark.parametrize("kept", ["x^2", "x_2", "2x", "Step 2:", "2\\pi", "12", "0.2", "1.2", "2,000", "A2"])
def test_what_only_looks_like_the_answer_stays(kept):
    assert masked(f"First there is {kept} here. #### 2", "2") == f"First there is {kept} here. #### [...]"


@pytest.mark.parametrize("solution", ["12", "\\boxed{12}", "#### 12", "The final answer is 12.", "So, therefore: 12"])
def test_a_solution_of_an_answer_alone_cannot_be_shown(solution):
    assert masked(solution, "12") is None


def test_the_part_before_the_answer_ends_where_it_is_first_stated():
    solution = "2 + 2 = 4. Then 4 * 3 = 12. \\boxed{12}"
    assert before_answer(solution, Problem("id", "", solution, "12")) == "2 + 2 = 4. Then 4 * 3 = "
