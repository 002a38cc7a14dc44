"""Rows to problems, and what is wrong with the others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsft.boxed import last_boxed
from offsft.config import Fields
from offsft.problems import RawRow, Reason, Rejected, content_id, parse
from offsft.records import Problem


def row(raw, fmt="own", fields=None):
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return parse(RawRow("f.jsonl", 7, data), fmt, fields or Fields())


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
        (b'{"problem": "\\u0000", "solution": "\\\\boxed{1}"}', "own", Reason.EMPTY_FIELD, "problem is empty"),
    ],
)  # fmt: skip
def test_a_bad_row_is_rejected_with_its_place_and_reason(raw, fmt, reason, detail):
    got = row(raw, fmt)
    assert isinstance(got, Rejected)
    assert (got.file, got.line, got.reason) == ("f.jsonl", 7, reason)
    assert detail in got.detail
    assert "\n" not in got.detail


def test_the_id_sees_through_spacing_and_unicode_form():
    assert content_id("caf\u00e9  one\n two") == content_id("cafe\u0301 one two")
    assert content_id("one") != content_id("two")


def test_a_lone_surrogate_and_a_byte_order_mark_do_no_harm():
    got = row(b"\xef\xbb\xbf" + json.dumps({"problem": "P \ud800", "solution": "\\boxed{1}"}).encode())
    assert isinstance(got, Problem)
    got.problem.encode("utf-8")


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


@given(st.text(alphabet="ab {}\\", max_size=40))
def test_a_box_appended_to_any_text_is_the_last_one(text):
    assert last_boxed(text + " \\boxed{7}") == "7" or text.count("{") > text.count("}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none", None),
        ("\\boxed{a} \\boxed{b", "a"),
        ("\\boxed{\\boxed{a}", "a"),
        ("\\boxed 7 apples", "7"),
        ("\\boxed", None),
        ("x \\boxed{ {1} } y", "{1}"),
    ],
)
def test_last_boxed(text, found):
    assert last_boxed(text) == found


def test_a_million_open_boxes_are_read_once():
    assert last_boxed("\\boxed{" * 1_000_000) is None
