"""Rows become problems, and bad rows are rejected with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.config import Fields
from offsft.data.choices import column_of
from offsft.data.formats import content_id, parse
from offsft.data.layouts import LAYOUTS, recognise, unread_fields
from offsft.data.rows import RawRow, Reason, Rejected
from offsft.records import Problem
from offsft.verify.boxed import boxed_answer, last_boxed


def row(raw, fmt="own", fields=None):
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return parse(RawRow("f.jsonl", 7, data), fmt, fields or Fields())


def storable(text):
    """Whether Parquet and a tokenizer accept the text."""
    return "\0" not in text and text.encode("utf-8").decode("utf-8") == text


def test_own_fields_and_the_answer_from_the_box():
    got = row({"q": " How many? ", "s": "2 + 2 = 4. \\boxed{4}"}, fields=Fields(problem="q", solution="s"))
    assert got == Problem(content_id("How many?"), "How many?", "2 + 2 = 4. \\boxed{4}", "4")


def test_gsm8k_loses_its_marks_and_gains_a_box():
    got = row({"question": "Q", "answer": "He has 48/2 = <<48/2=24>>24 clips.\n#### 1,024"}, "gsm8k")
    assert isinstance(got, Problem)
    assert got.solution == "He has 48/2 = 24 clips.\nThe answer is \\boxed{1024}."
    assert got.answer == "1024"


def test_math_takes_the_last_box_with_nested_braces():
    got = row({"problem": "P", "solution": "\\boxed{1} so \\boxed{\\frac{1}{2}}."}, "math")
    assert isinstance(got, Problem)
    assert got.answer == "\\frac{1}{2}"


def test_an_answer_given_as_a_number_is_boxed_into_the_solution():
    got = row({"problem": "P", "solution": "worked", "answer": 27.0}, "math")
    assert isinstance(got, Problem)
    assert (got.answer, got.solution) == ("27", "worked\nThe answer is \\boxed{27}.")


@pytest.mark.parametrize(
    ("raw", "fmt", "reason", "detail"),
    [
        (b'{"problem": ', "own", Reason.BAD_JSON, "not valid JSON"),
        (b"[" * 100_000, "own", Reason.BAD_JSON, "nested too deeply"),
        (b'{"problem": "\xff"}', "own", Reason.NOT_UTF8, "byte 13 is not UTF-8"),
        (b"[1, 2]", "own", Reason.NOT_AN_OBJECT, "this is a list"),
        ({"question": "Q"}, "own", Reason.MISSING_FIELD, "'problem' is missing; the row has: question; set data.fields.problem"),
        ({"problem": "  ", "solution": "s"}, "own", Reason.EMPTY_FIELD, "'problem' is empty"),
        ({"problem": 3, "solution": "s"}, "own", Reason.WRONG_TYPE, "'problem' holds a number"),
        ({"problem": "P", "solution": "no box"}, "own", Reason.NO_ANSWER, "data.fields.answer"),
        ({"problem": "P", "solution": "\\boxed{}"}, "own", Reason.NO_ANSWER, "no answer"),
        ({"question": "Q", "answer": "worked, no mark"}, "gsm8k", Reason.NO_ANSWER, "####"),
        ({"question": "Q", "answer": "#### 3"}, "gsm8k", Reason.EMPTY_FIELD, "solution is empty"),
        ({"question": "Q", "answer": "worked\n#### 3\nmore"}, "gsm8k", Reason.NO_ANSWER, "last line"),
        ({"problem": "P", "solution": "s", "answer": float("nan")}, "math", Reason.WRONG_TYPE, "'answer' holds a number"),
        ({"problem": "P", "solution": "s", "answer": True}, "math", Reason.WRONG_TYPE, "holds true or false"),
        (b'{"answer": 1' + b"0" * 5000 + b"}", "math", Reason.BAD_JSON, "too many digits"),
        ({"messages": "Q"}, "numina", Reason.WRONG_TYPE, "'messages' is not a list"),
        ({"messages": [{"role": "user", "content": "Q"}]}, "numina", Reason.MISSING_FIELD, "none of the assistant"),
        ({"a\nb \ud800": 1}, "own", Reason.MISSING_FIELD, "the row has: a b ?"),
        (b'{"problem": "\\u0000", "solution": "\\\\boxed{1}"}', "own", Reason.EMPTY_FIELD, "problem is empty"),
    ],
)  # fmt: skip
def test_a_bad_row_is_rejected_with_its_place_and_reason(raw, fmt, reason, detail):
    got = row(raw, fmt)
    assert isinstance(got, Rejected)
    assert (got.file, got.line, got.reason) == ("f.jsonl", 7, reason)
    assert detail in got.detail
    assert "\n" not in got.detail
    assert storable(got.detail)


def test_the_id_sees_through_spacing_and_unicode_form():
    assert content_id("caf\u00e9  one\n two") == content_id("cafe\u0301 one two")
    assert content_id("one") != content_id("two")


@pytest.mark.parametrize(
    ("number", "text"), [(27.0, "27"), (0.5, "0.5"), (-3, "-3"), (10**400, "1" + "0" * 400), (1e300, "1e+300")]
)
def test_an_answer_may_be_any_finite_number(number, text):
    got = row({"problem": "P", "solution": "s", "answer": number}, "math")
    assert isinstance(got, Problem)
    assert got.answer == text


def test_an_empty_answer_field_of_math_leaves_the_box_to_say_it():
    got = row({"problem": "P", "solution": "\\boxed{3} or \\boxed{4}", "answer": ""}, "math")
    assert isinstance(got, Problem)
    assert got.answer == "3, 4"


def test_numina_rows_have_fields_or_messages():
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "\\boxed{3}"},
        {"role": "user", "content": "more"},
    ]
    by_fields = row({"problem": "Q", "solution": "\\boxed{3}", "messages": turns}, "numina")
    assert by_fields == row({"messages": turns}, "numina") == Problem(content_id("Q"), "Q", "\\boxed{3}", "3")


def test_a_lone_surrogate_and_a_byte_order_mark_do_no_harm():
    got = row(
        b"\xef\xbb\xbf" + json.dumps({"problem": "P \ud800", "solution": "s", "answer": "1\0\ud800"}).encode(), "math"
    )
    assert isinstance(got, Problem)
    assert storable(got.problem + got.solution + got.answer)


@given(st.binary(max_size=200), st.sampled_from(["own", "gsm8k", "math", "numina"]))
def test_no_bytes_make_the_parser_raise(raw, fmt):
    assert isinstance(row(raw, fmt), Problem | Rejected)


_JSON = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=2)
)


@given(st.dictionaries(st.sampled_from(["problem", "solution", "answer", "question"]), _JSON))
def test_no_object_makes_the_parser_raise(tree):
    for fmt in ("own", "gsm8k", "math"):
        assert isinstance(row(tree, fmt), Problem | Rejected)


_NAMES = ["problem", "solution", "answer", "question", "choices", "options", "answerKey", "messages", "conversations", "prompt", "completion", "instruction", "input", "output", "reward_model", "extra_info", "text", "label", "role", "from", "content", "value", "test_list", "test", "entry_point", "code", "type", "ground_truth"]  # fmt: skip
_TREES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-2, 9) | st.sampled_from(["", " ", "A", "B) x", "x", "user", "assistant", "[1", '[{"role": "user"}]', "\\boxed{B}", "assert f(1)", "text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(_NAMES), _TREES, min_size=1),
    st.sampled_from([*LAYOUTS, "own", "chat"]),
    st.sampled_from(["math", "choice", "code", "free"]),
    st.booleans(),
)
def test_no_object_makes_a_layout_raise_in_any_domain(tree, form, domain, held_out):
    fields = Fields(problem="{question} {extra_info.text}", solution="solution", answer="answer", choices="choices")
    raw = RawRow("f", 1, json.dumps(tree).encode())
    got = parse(raw, form, fields, domain, held_out=held_out)
    assert isinstance(got, Problem | Rejected)
    recognise([tree], domain)
    assert isinstance(unread_fields(tree, form, fields), list)
    column = column_of([tree], fields)
    assert isinstance(parse(raw, "own", fields, "choice", held_out=True, column=column), Problem | Rejected)


@given(st.text(alphabet="ab {}\\1,$", max_size=40), st.integers())
def test_a_box_at_the_end_of_any_text_is_the_last_one(text, number):
    assert last_boxed(f"{text} \\boxed{{{number}}}") == str(number)


@given(st.recursive(st.sampled_from(["1", "x", "\\{", "\\}", ""]), lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"), max_leaves=8))  # fmt: skip
def test_balanced_braces_come_out_whole(content):
    assert last_boxed(f"so \\boxed{{{content}}}, done }}") == content.strip()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none", None),
        ("\\boxed{a} \\boxed{b", "a"),
        ("\\boxed{\\boxed{a}", "a"),
        ("\\boxed{\\boxed{a}}", "a"),
        ("\\boxed 7 apples", "7"),
        ("$\\boxed 7$.", "7"),
        ("\\boxed\n{7}", "7"),
        ("\\fbox{7}", "7"),
        ("\\boxed", None),
        ("\\boxedx{7}", None),
        ("x \\boxed{ {1} } y", "{1}"),
        ("\\boxed{\\left\\{ 1 \\right.}", "\\left\\{ 1 \\right."),
        ("\\boxed{}", ""),
    ],
)
def test_last_boxed(text, found):
    assert last_boxed(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$\\boxed{3}$ and $\\boxed{4}$.", "3, 4"),
        ("\\boxed{3}, \\boxed{4}, \\text{or} \\boxed{5}", "3, 4, 5"),
        ("\\boxed{3}. So \\boxed{4}", "4"),
        ("\\boxed{4}, \\boxed{4}", "4"),
        ("none", None),
    ],
)
def test_joined_boxes_are_one_answer(text, found):
    assert boxed_answer(text) == found


@pytest.mark.parametrize("unit", ["\\boxed{", "\\boxed", "\\boxed ", "{", "}", "\\boxed{1}, ", "\\"])
def test_a_million_characters_of_any_shape_are_read_in_one_walk(unit):
    text = unit * (1_000_000 // len(unit))
    assert boxed_answer(text) == ("1" if "1" in unit else None)
