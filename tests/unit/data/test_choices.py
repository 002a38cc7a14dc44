"""The letter of the right choice: told by the field's type and the whole column, refused where two readings stand."""

import json

import pytest

from offsft.config import Fields
from offsft.data.choices import column_of
from offsft.data.formats import parse
from offsft.data.rows import RawRow, Reason
from offsft.records import Problem
from tests.unit.data.test_layouts import rejection, row

WXYZ = ["w", "x", "y", "z"]
NUMBERS = ["1", "2", "3", "4"]


def letters(answers, choices=None, answer_is=None):
    """The letter of each answer of a column, or the reason why it is refused."""
    each = choices if choices and isinstance(choices[0], list) else [choices or WXYZ] * len(answers)
    rows = [{"q": f"q{n}", "c": texts, "a": answer, "s": "s"} for n, (answer, texts) in enumerate(zip(answers, each, strict=True))]  # fmt: skip
    fields = Fields(problem="q", answer="a", choices="c", solution="s", answer_is=answer_is)
    column = column_of(rows, fields)
    got = [parse(RawRow("f", 1, json.dumps(raw).encode()), "own", fields, "choice", column=column) for raw in rows]
    return [one.answer if isinstance(one, Problem) else str(one.reason) for one in got]


def test_an_integer_is_an_index_also_among_choices_that_are_numbers():
    raw = {"question": "How many bits hold one digit from 0 to 9?", "choices": NUMBERS, "answer": 3, "solution": "s"}
    assert row(raw, domain="choice", problem="question", answer="answer", choices="choices").answer == "D"
    assert letters([0, 3, 1, 2]) == ["A", "D", "B", "C"]
    assert letters([2.0]) == ["C"]


@pytest.mark.parametrize("kind", [int, str])
def test_a_column_that_counts_from_1_shows_it(kind):
    assert letters(list(map(kind, [1, 2, 3, 4]))) == ["A", "B", "C", "D"]
    assert letters(list(map(kind, [2, 4]))) == ["B", "D"]
    assert letters(list(map(kind, [0, 1, 2, 3]))) == ["A", "B", "C", "D"]
    assert letters(list(map(kind, [0, 4]))) == ["A", "no_answer"]
    assert letters(list(map(kind, [2, 3])), [["w", "x"], WXYZ]) == ["B", "C"]


@pytest.mark.parametrize(
    ("answers", "choices", "found"),
    [
        (["B", "d", "(A)", "C."], None, ["B", "D", "A", "C"]),
        (["x", "Z ", "w", "y"], None, ["B", "D", "A", "C"]),
        (["B. x", "(C) y", "A) w"], None, ["B", "C", "A"]),
        (["A", "C"], [["B", "A", "C", "D"], WXYZ], ["A", "C"]),  # letters in one row are texts too
        (["A", "y"], [["B", "A", "C", "D"], WXYZ], ["B", "C"]),  # all are texts
        (["A", "y", "C"], [["B", "A", "C", "D"], WXYZ, WXYZ], ["ambiguous_answer", "C", "C"]),  # mixed: undecided
        (["A", "B"], [["B", "A"], ["B", "A"]], ["ambiguous_answer"] * 2),
        (["A", "B"], [["A", "B"], ["A", "B"]], ["A", "B"]),  # both readings say the same
        (["2", "1"], [NUMBERS, ["0", "1"]], ["ambiguous_answer"] * 2),
        (["3", "0"], [NUMBERS, WXYZ], ["D", "A"]),  # a text in the first row only
        (["5", "7"], [["5", "6"], ["6", "7"]], ["A", "B"]),
        (["E", "x"], None, ["no_answer", "B"]),
        (["v"], None, ["no_answer"]),
        ([True], None, ["wrong_type"]),
        ([["B"]], None, ["B"]),
        ([["B", "C"]], None, ["wrong_type"]),
        (["The answer is B.", "\\boxed{C}", "Option D"], None, ["B", "C", "D"]),
        (["x"], [["x", "x", "y"]], ["no_answer"]),  # two choices with that text
    ],
)
def test_text_letter_and_number_are_told_apart_by_the_column(answers, choices, found):
    assert letters(answers, choices) == found


def test_a_setting_decides_where_the_column_does_not():
    assert letters(["3"], NUMBERS) == ["ambiguous_answer"]
    assert letters(["3"], NUMBERS, "text") == ["C"]
    assert letters(["3"], NUMBERS, "index") == ["D"]
    assert letters(["3"], NUMBERS, "position") == ["C"]
    assert letters([3], NUMBERS, "text") == ["C"]
    assert letters(["A"], ["B", "A"], "letter") == ["A"]
    assert letters(["A"], ["B", "A"], "text") == ["B"]
    assert letters([1, 2], None, "position") == ["A", "B"]
    assert letters(["x"], None, "letter") == ["no_answer"]
    raw = {"q": "Q", "c": NUMBERS, "a": "3", "s": "s"}
    got = rejection(raw, domain="choice", problem="q", answer="a", choices="c", solution="s")
    assert "can be read as text (C) or index (D) or position (C); set data.fields.answer_is" in got.detail


AQUA = {"question": "Speed?", "options": ["A)21", "B)21.5", "C)22"], "correct": "C", "rationale": "s"}


@pytest.mark.parametrize(
    ("form", "raw", "shown", "answer"),
    [
        ("mmlu", {"question": "Q", "choices": NUMBERS, "answer": 0, "solution": "s"}, "A. 1\nB. 2\nC. 3\nD. 4", "A"),
        ("mmlu_pro", {"question": "Q", "options": [f"o{n}" for n in range(10)], "answer": "I", "cot_content": "s"}, "I. o8\nJ. o9", "I"),
        ("arc", {"question": "Q", "choices": {"text": ["u", "v", "w"], "label": ["A", "B", "C"]}, "answerKey": "B"}, "B. v", "B"),
        ("arc", {"question": "Q", "choices": {"text": ["u", "v", "w"], "label": ["1", "2", "3"]}, "answerKey": "3"}, "C. w", "C"),
        ("arc", {"question": "Q", "choices": [{"text": "u", "label": "A"}, {"text": "v", "label": "B"}], "answerKey": "B"}, "B. v", "B"),
        ("aqua", AQUA, "A. 21\nB. 21.5\nC. 22", "C"),
    ],
)  # fmt: skip
def test_published_layouts_of_choices(form, raw, shown, answer):
    got = row(raw, form, "choice", held_out=True)
    assert shown in got.problem
    assert got.answer == answer


def test_marks_that_the_choices_carry_are_not_shown_twice():
    fields = {"problem": "question", "answer": "correct", "choices": "options", "solution": "rationale"}
    got = row(AQUA, domain="choice", **fields)
    assert got.problem == "Speed?\n\nA. 21\nB. 21.5\nC. 22"
    assert got.check == {"choices": ["21", "21.5", "22"]}
    for options in (["(a) u", "(b) v"], ["A: u", "B: v"], ["a . u", "b . v"], "a ) u , b ) v", "A. u\nB. v", '["A. u", "B. v"]', {"A": "u", "B": "v"}):  # fmt: skip
        assert row(AQUA | {"options": options, "correct": "B"}, domain="choice", **fields).problem == "Speed?\n\nA. u\nB. v"  # fmt: skip
    assert row(AQUA | {"options": ["1.5", "2.5"], "correct": "B"}, domain="choice", **fields).problem.endswith("A. 1.5\nB. 2.5")  # fmt: skip
    assert row(AQUA | {"options": ["A) u", "v"], "correct": "B"}, domain="choice", **fields).problem.endswith("A. A) u\nB. v")  # fmt: skip


def gpqa(number):
    names = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    return {"Question": f"Q{number}", "Explanation": "s"} | {name: f"{name} {number}" for name in names}


def test_an_answer_that_always_comes_first_is_put_anywhere():
    got = [row(gpqa(number), "gpqa", "choice") for number in range(64)]
    assert {each.answer for each in got} == set("ABCD")
    assert got == [row(gpqa(number), "gpqa", "choice") for number in range(64)]
    for number, each in enumerate(got):
        assert f"{each.answer}. Correct Answer {number}" in each.problem


def test_the_letter_is_the_one_that_the_solution_chooses():
    raw = {"q": "Q", "c": WXYZ, "s": "So it is y. The answer is (C)."}
    assert row(raw, domain="choice", problem="q", choices="c", solution="s").answer == "C"
    got = rejection(raw | {"a": "B"}, domain="choice", problem="q", choices="c", solution="s", answer="a")
    assert (got.reason, got.detail) == (Reason.CONTRADICTION, "the answer's field says B, and the solution ends in C")
    assert rejection(raw | {"s": "Well."}, domain="choice", problem="q", choices="c", solution="s").reason is Reason.NO_ANSWER  # fmt: skip
    got = row(raw | {"a": "C", "s": "Well."}, domain="choice", problem="q", choices="c", solution="s", answer="a")
    assert got.solution == "Well.\nThe answer is \\boxed{C}."


@pytest.mark.parametrize("choices", [None, "one", 3, [], ["a", ""], [None, "x"], [str(n) for n in range(17)], [{"x": 1}]])  # fmt: skip
def test_what_is_no_list_of_choices_is_refused(choices):
    raw = {"q": "Q", "c": choices, "a": "A", "s": "s"}
    got = rejection(raw, domain="choice", problem="q", choices="c", solution="s", answer="a")
    assert got.reason in (Reason.WRONG_TYPE, Reason.EMPTY_FIELD)


def test_choices_may_be_part_of_the_problem():
    raw = {"problem": "Which?\nA. u\nB. v", "answer": "(B)", "solution": "s"}
    got = row(raw, domain="choice", answer="answer")
    assert (got.problem, got.answer, got.check) == (raw["problem"], "B", {})
    assert row(raw | {"answer": None, "solution": "So (A) is correct."}, domain="choice", answer="answer").answer == "A"
