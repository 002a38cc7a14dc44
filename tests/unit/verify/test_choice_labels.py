"""Choices with their labels, such as `(C) 12`, where the reference or the response has one."""

import pytest

from offsft.verify.math import equal


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\textbf{(C)}\\ 12", "C"),
        ("\\text{(C) } 12", "(C)"),
        ("\\mathrm{(C)}~\\frac{1}{2}", "\\text{C}"),
        ("C) 12", "C"),
        ("C. 12", "C"),
        ("\\text{C: Paris}", "C"),
        ("(A) -5", "A"),
        ("\\textbf{(C)}\\ 12", "12"),
        ("\\text{(C) Paris}", "Paris"),
        ("(C) \\frac{1}{2}", "(C) 0.5"),
        ("A. Lincoln", "A. Lincoln"),
    ],
)
def test_a_label_stands_for_its_choice(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("(D) 12", "C"),
        ("(D) 12", "(C) 12"),
        ("(C) 13", "12"),
        ("(A) \\text{ and } (B)", "A"),
        ("(A) and (C) 3", "A"),
        ("A, B", "A"),
        ("(A)(B)", "A"),
        ("(A)^2", "A"),
        ("(A) + 1", "A"),
        ("A: B", "A"),
        ("A. Lincoln", "A. Johnson"),
    ],
)
def test_another_label_several_labels_and_no_label_are_no_such_choice(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False
