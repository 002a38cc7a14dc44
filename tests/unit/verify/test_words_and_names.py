"""Answers in words, and answers whose parts have names."""

import pytest

from offsft.verify.math import equal


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\text{Room 12}", "Room 12"),
        ("\\text{True}", "true"),
        ("\\mathrm{True}", "TRUE"),
        ("\\text{Yes.}", "Yes"),
        ("\\textbf{Yes}", "yes"),
        ("\\text{Monday}", "monday"),
        ("\\text{ Blue.}", "blue"),
        ("Evelyn", "\\text{Evelyn}"),
        ("\\text{(B)}", "B"),
        ("Cannot be determined", "\\text{cannot be determined.}"),
        ("The red car", "red car"),
        ("\\text{13}", "13"),
        ("\\mbox{no}", "No"),
        ("“Paris”", "Paris"),
    ],
)
def test_words_are_the_same_in_another_dress(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\text{No}", "Yes"),
        ("\\text{True}", "\\text{False}"),
        ("\\text{Room 12}", "Room 13"),
        ("not even", "even"),
        ("\\text{Tuesday}", "Monday"),
        ("\\text{A}", "\\text{B}"),
        ("\\text{odd}", "\\text{even}"),
    ],
)
def test_other_words_differ(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\begin{cases} x=1 \\\\ y=2 \\end{cases}", "x=1, y=2"),
        ("\\begin{aligned} x&=1 \\\\ y&=2 \\end{aligned}", "y = 2, x = 1"),
        ("\\left\\{\\begin{array}{l} x=1 \\\\ y=2 \\end{array}\\right.", "x=1, y=2"),
        ("x=1 \\text{ and } y=2", "y=2, x=1"),
        ("(x,y)=(1,2)", "x=1, y=2"),
        ("(x, y) = (1, 2)", "y=2 \\\\ x=1"),
        ("k=45, n=2", "n = 2, k = 45"),
        ("a_1=3, b_1=4", "b_1=4, a_1=3"),
    ],
)
def test_named_parts_are_compared_by_name(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("1, 2", "x=1, y=2"),
        ("(1, 2)", "x=1, y=2"),
        ("(1,2,3)", "x=1, y=2, z=3"),
        ("x_1=1, x_2=2", "2, 1"),
        ("x=1 \\text{ or } x=2", "2, 1"),
        ("x=1, x=2", "x=2, x=1"),
    ],
)
def test_without_names_the_order_decides(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("2, 1", "x=1, y=2"),
        ("(2, 1)", "x=1, y=2"),
        ("x=1, y=2", "x=2, y=1"),
        ("a=1, b=2", "x=1, y=2"),
        ("x=1, y=2", "x=1, y=2, z=3"),
        ("x=1", "x=1, y=2"),
    ],
)
def test_named_parts_that_differ(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("x \\equiv 3 \\pmod{5}", "3 \\pmod{5}"),
        ("x ≡ 3 (mod 5)", "x \\equiv 3 \\pmod 5"),
        ("3 \\bmod 5", "3 mod 5"),
        ("8 \\pmod 5", "3 \\pmod 5"),
        ("x \\equiv 3 \\pmod{5}", "3"),
    ],
)
def test_a_residue_in_two_notations_is_one_residue(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("3 \\pmod 5", "3 \\pmod 7"),
        ("3 \\pmod 5", "4 \\pmod 5"),
        ("x \\equiv 3 \\pmod{5}", "5"),
    ],
)
def test_another_residue_differs(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False
