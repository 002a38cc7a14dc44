"""One set in all notations: lists, braces, intervals, inequalities, set-builder, differences, words."""

import pytest

from offsft.verify.math import equal


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\langle 1,2,3\\rangle", "(1,2,3)"),
        ("\\left\\langle 1,2\\right\\rangle, \\langle 3,4\\rangle", "(3,4), (1,2)"),
        ("\\frac{1}{2} \\text{ or } 50\\%", "0.5"),
        ("\\{1,2,3\\}", "1, 2, 3"),
        ("\\{1,2,3\\}", "3, 1 \\text{ and } 2"),
        ("{1, 2, 3}", "\\{3,2,1\\}"),
        ("\\left\\{1, 2\\right\\}", "\\lbrace 2, 1\\rbrace"),
        ("\\{(1,2),(2,1)\\}", "(1,2),(2,1)"),
        ("\\{5\\}", "5"),
        ("\\{(1,2)\\}", "(1, 2)"),
        ("\\varnothing", "\\emptyset"),
        ("\\{\\}", "∅"),
        ("no solution", "\\emptyset"),
        ("\\text{no real solutions}", "\\varnothing"),
        ("0 < x < 12.5", "(0, 12.5)"),
        ("x<-1 \\text{ or } x>2", "(-\\infty,-1)\\cup(2,\\infty)"),
        ("x>5", "(5,\\infty)"),
        ("5<x", "x>5"),
        ("> 5", "x > 5"),
        ("x \\geqslant 3", "[3,\\infty)"),
        ("x>=3", "x\\ge 3"),
        ("-1\\le x\\le 1", "[-1,1]"),
        ("x \\in (-1, 1]", "-1 < x \\le 1"),
        ("\\{x \\mid x>5\\}", "(5,\\infty)"),
        ("\\{x : 0 < x < 5\\}", "(0,5)"),
        ("\\{x \\in \\mathbb{R} \\mid x \\ne 2\\}", "(-\\infty,2)\\cup(2,\\infty)"),
        ("]0,5[", "(0,5)"),
        ("[0,5[", "[0,5)"),
        ("\\mathbb{R}", "(-\\infty,\\infty)"),
        ("\\text{all real numbers}", "ℝ"),
        ("\\mathbb R\\setminus\\{0\\}", "x \\neq 0"),
        ("x>0 \\text{ and } x<5", "0<x<5"),
        ("[0,1]\\cup\\{2\\}", "\\{2\\}\\cup[0,1]"),
        ("at least 5", "x \\ge 5"),
        ("\\text{more than } 5", "x > 5"),
        ("\\sqrt{2} < x < 3", "(\\sqrt{2}, 3)"),
        ("\\frac12 \\le x", "[0.5, \\infty)"),
    ],
)
def test_one_set_in_two_notations_is_one_set(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("[1,2]", "(1,2)"),
        ("1 < x < 2", "1 \\le x < 2"),
        ("x < 5", "x > 5"),
        ("x<5", "y<5"),
        ("\\{1,2\\}", "\\{1,2,3\\}"),
        ("(1,2)", "\\{1,2\\}"),
        ("(1,2)", "1, 2"),
        ("\\langle 2,1\\rangle", "(1,2)"),
        ("0<x<12", "(0,12.5)"),
        ("x \\ne 2", "x \\ne 3"),
        ("\\mathbb{R}", "\\mathbb{Z}"),
        ("\\emptyset", "0"),
        ("\\emptyset", "\\{0\\}"),
        ("x<-1 \\text{ or } x>2", "x<-1 \\text{ and } x>2"),
    ],
)
def test_other_sets_differ(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("> 5", "5"),
        ("x > 5", "5"),
        ("\\ge 5", "5"),
        ("5 < x", "5"),
        ("\\text{at least } 5", "5"),
        ("more than 5", "5"),
        ("0 < x < 5", "5"),
        ("\\{x \\mid x > 5\\}", "5"),
    ],
)
def test_a_range_is_not_its_end(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("1728", "1331 and 1728"),
        ("\\frac{1}{2} \\text{ or } \\frac{1}{3}", "\\frac{1}{2}"),
        ("n=1, 2, 3", "n=2, 3, 4"),
        ("21, 36, and 82", "19, 46, \\text{ and } 82"),
        ("2021", "\\pm 2021"),
    ],
)
def test_values_that_are_no_sets_are_compared_as_before(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False
