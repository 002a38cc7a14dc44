"""The reference answer: the final one, bare, and refused where the row says that there is none."""

import json

import pytest

from offsft.config import Fields
from offsft.data.formats import parse
from offsft.data.rows import RawRow, Reason, Rejected
from offsft.records import Problem
from tests.unit.data.test_layouts import rejection, row


@pytest.mark.parametrize(
    "mark", ["proof", "Proof", "notfound", "not found", "N/A", "n/a", "None", "null", "NaN", "-", "?", "unknown", "\\text{None}", "$\\text{proof}$", "[Not found]", "no answer", "TBD", "see solution"]
)  # fmt: skip
@pytest.mark.parametrize("form", ["numina", "own", "math"])
def test_a_word_that_stands_for_no_answer_is_none(mark, form):
    raw = {"problem": "Prove that 2 is even.", "solution": "2 = 2*1.", "answer": mark}
    got = rejection(raw, form, **({"answer": "answer"} if form == "own" else {}))
    assert got.reason is Reason.NO_ANSWER
    assert "stands for no answer" in got.detail


def test_a_data_sets_own_columns_on_validity_count():
    raw = {"problem": "P", "solution": "\\boxed{2}", "answer": "2", "question_type": "math-word-problem", "problem_is_valid": "Yes", "solution_is_valid": "Yes"}  # fmt: skip
    assert row(raw, "numina").answer == "2"
    for change in ({"question_type": "proof"}, {"problem_is_valid": "Incomplete"}, {"solution_is_valid": "No"}, {"problem_is_valid": False}):  # fmt: skip
        assert rejection(raw | change, "numina").reason is Reason.NO_ANSWER


@pytest.mark.parametrize("answer", ["0", "-1", "x-1", "\\varnothing", "DNE", "\\text{no solution}", "undefined", "(-\\infty, 1]", "no", "p"])  # fmt: skip
def test_answers_that_only_look_like_none_stay(answer):
    assert row({"problem": "P", "solution": "s", "answer": answer}, answer="answer").answer == answer


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("First \\boxed{3} eggs. The rest is 7.\nThe answer is 7.", "7"),
        ("The answer is 7? No: \\boxed{3}.", "3"),
        ("2+3=5.\nThe answer is: 5", "5"),
        ("2+3=5.\n#### 5", "5"),
        ("So <answer>5</answer>", "5"),
        ("**Final Answer**\n$5$", "5"),
        ("<think>\\boxed{9}</think>It is \\boxed{5}.", "5"),
        ("They are \\(\\boxed{3}\\) and \\(\\boxed{5}\\).", "3, 5"),
        ("(a) \\boxed{3}\n\n(b) \\boxed{5}", "3, 5"),
    ],
)
def test_the_reference_is_the_solutions_final_answer(solution, answer):
    got = row({"problem": "P", "solution": solution})
    assert got.answer == answer
    assert (
        parse(RawRow("f", 1, json.dumps({"problem": "P", "solution": got.solution}).encode()), "own", Fields()) == got
    )


def test_a_solution_that_states_its_answer_without_a_box_ends_in_one():
    got = row({"query": "q", "response": "2+3=5.\nThe answer is: 5"}, problem="query", solution="response")
    assert got.solution == "2+3=5.\nThe answer is: 5\nThe answer is \\boxed{5}."


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (["42"], "42"),
        ([42], "42"),
        (["1", "2"], "1, 2"),
        ("\\boxed{42}", "42"),
        ("$\\frac{1}{2}$", "\\frac{1}{2}"),
        ("\\( 42 \\)", "42"),
        ("$$42$$.", "42"),
        ("#### 42", "42"),
        ("The answer is 42.", "42"),
        ("<answer>42</answer>", "42"),
        ('["42"]', "42"),
        ("['1', '2']", "1, 2"),
        ("[1, 2]", "[1, 2]"),
        ("\\{1, 2\\}", "\\{1, 2\\}"),
        ("x = 42", "x = 42"),
        (" 42 ", "42"),
        ("9 (apples)", "9 (apples)"),
        ('{"answer": 42}', '{"answer": 42}'),
        ("\\$5", "\\$5"),
        ("$1$ or $2$", "$1$ or $2$"),
    ],
)
def test_an_answer_field_of_any_shape_is_bare(value, answer):
    got = row({"problem": "P", "solution": "s", "answer": value}, answer="answer")
    assert (got.answer, got.solution) == (answer, f"s\nThe answer is \\boxed{{{answer}}}.")


@pytest.mark.parametrize("nothing", [None, "", "  ", [], [""]])
def test_an_empty_answer_field_leaves_it_to_the_solution(nothing):
    assert row({"problem": "P", "solution": "\\boxed{3}", "answer": nothing}, answer="answer").answer == "3"
    assert rejection({"problem": "P", "solution": "s", "answer": nothing}, answer="answer").reason is Reason.NO_ANSWER


@pytest.mark.parametrize("wrong", [True, {"value": 1}])
def test_an_answer_of_another_type_is_refused(wrong):
    assert rejection({"problem": "P", "solution": "s", "answer": wrong}, answer="answer").reason is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("answer", "solution", "agrees"),
    [
        ("42", "so \\boxed{41}", False),
        ("42", "The answer is 41.", False),
        ("\\frac{1}{2}", "so \\boxed{\\frac{1}{3}}", False),
        ("42", "so \\boxed{42}", True),
        ("1,000", "so \\boxed{1000}", True),
        ("50", "so \\boxed{\\frac{1}{2}}", True),
        ("0.33", "so \\boxed{\\frac{1}{3}}", True),
        ("x+1", "so \\boxed{1+x}", True),
    ],
)
def test_an_answer_that_the_solution_contradicts_is_refused(answer, solution, agrees):
    got = parse(RawRow("f", 1, json.dumps({"problem": "P", "solution": solution, "answer": answer}).encode()), "math", Fields())  # fmt: skip
    assert isinstance(got, Problem) is agrees
    if isinstance(got, Rejected):
        assert got.reason is Reason.CONTRADICTION
        assert "the solution ends in" in got.detail


@pytest.mark.parametrize("command", ["\\frac{1}{2}", "\\boxed{2}", "\\times 3", "\\theta", "\\text{m}", "\\right)", "\\neq 2", "\\nabla f", "\\beta", "\\rho ", "\\tan x", "\\to 0", "\\tau"])  # fmt: skip
@pytest.mark.parametrize("field", ["problem", "solution", "answer"])
def test_latex_that_json_escapes_have_eaten_is_refused(command, field):
    texts = {"problem": "What is x?", "solution": "so x is 2", "answer": "2"}
    texts[field] += " " + command
    raw = "{" + ", ".join(f'"{name}": "{text}"' for name, text in texts.items()) + "}"
    got = parse(RawRow("f", 1, raw.encode()), "own", Fields(answer="answer"))
    assert isinstance(got, Rejected)
    assert got.reason is Reason.LOST_ESCAPE
    escaped = raw.replace("\\", "\\\\")
    assert isinstance(parse(RawRow("f", 1, escaped.encode()), "own", Fields(answer="answer")), Problem)


def test_tabs_and_new_lines_of_plain_text_and_code_stay():
    assert (
        row({"problem": "a\tan apple\nequals\r\nnot\tall", "solution": "s", "answer": "2"}, answer="answer").answer
        == "2"
    )
    code = {"problem": "P", "solution": "def f():\n\ttext = 1\n\x0cdef g(): pass", "tests": "assert f() is None"}
    assert row(code, domain="code").solution == code["solution"]
