"""One notation before anything is parsed: Unicode, upright constants, spellings from programs."""

import pytest

from offsft.verify.math import equal


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("60°", "60^\\circ"),
        ("125°", "125"),
        ("125^\\circ", "125°"),
        ("60˚", "60"),
        ("１２", "12"),
        ("１／２", "0.5"),
        ("x²+1", "x^2+1"),
        ("x⁻¹", "\\frac{1}{x}"),
        ("x¹⁰", "x^{10}"),
        ("½", "1/2"),
        ("1½", "\\frac{3}{2}"),
        ("⅔", "2/3"),
        ("√2/2", "\\frac{\\sqrt{2}}{2}"),
        ("∛8", "2"),
        ("x₁ = 2", "x_1=2"),
        ("3×10⁵", "300000"),
        ("6÷2", "3"),
        ("3 \\text{ to } 2", "3:2"),
        ("α+β", "\\alpha+\\beta"),
        ("2π", "2\\pi"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("−½", "-0.5"),
        ("𝑥²", "x^2"),
        ("5㎡", "5\\text{ m}^2"),
        ("25℃", "25^\\circ\\text{C}"),
        ("x≤3", "x \\le 3"),
        ("x≠3", "x\\ne3"),
        ("（1，2）", "(1,2)"),
        ("\u200b7\u200b", "7"),
        ("7\xa0", "7"),
        ("∠ABC", "\\angle ABC"),
        ("5 cm²", "5\\text{ cm}^2"),
        ("0.3̅", "1/3"),
        ("{1，2}", "\\{1,2\\}"),
        ("2⋅3", "6"),
    ],
)
def test_signs_of_unicode_are_read(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("x²", "x2"),
        ("10²", "102"),
        ("½", "12"),
        ("1½", "11/2"),
        ("x₁", "x1"),
        ("5²", "52"),
        ("√2", "2"),
        ("60°", "6^0"),
        ("ℝ", "R"),
        ("3–5", "-2"),
    ],
)
def test_signs_of_unicode_keep_their_meaning(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("3+4\\mathrm{i}", "3+4i"),
        ("2\\pi\\mathrm{i}", "2\\pi i"),
        ("\\mathrm{e}^{2}", "e^2"),
        ("1 + \\frac{1}{\\mathrm{e}}", "1+\\frac1e"),
        ("\\operatorname{e}^{2}", "e^2"),
        ("-1 + exp(16)", "e^{16} - 1"),
        ("\\exp(2x)", "e^{2x}"),
        ("\\exp{2}", "e^2"),
        ("exp(-(x+1))", "e^{-x-1}"),
        ("14.0 + -1.0i", "14 - i"),
        ("3+4j", "3+4i"),
        ("sqrt(2)/2", "\\frac{\\sqrt2}{2}"),
        ("\\sqrt(8)", "2\\sqrt{2}"),
        ("\\operatorname{sin}(x)", "\\sin x"),
        ("\\mathrm{ln} 2", "\\ln 2"),
        ("arctan(2)", "\\arctan 2"),
        ("atan(2)", "\\arctan(2)"),
        ("2*x**2", "2x^2"),
        ("\\mathbf{i}", "i"),
        ("2*pi", "2\\pi"),
        ("\\infin", "\\infty"),
        ("abs(x)", "|x|"),
        ("log_2(8)", "3"),
        ("\\lg 100", "2"),
        ("\\operatorname{tg} x", "\\tan x"),
        ("\\dfrac{1}{2}", "\\tfrac12"),
        ("\\(5\\)", "5"),
        ("\\displaystyle 5", "5"),
    ],
)
def test_upright_constants_and_programs_spellings_are_read(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("1 + \\frac{1}{\\mathrm{e}}", "1 - \\frac{1}{\\mathrm{e}}"),
        ("3+4\\mathrm{i}", "7"),
        ("4\\sqrt(2)", "4"),
        ("3i+4j", "3i+4i"),
        ("exp(2)", "2e"),
        ("5\\mathrm{m}", "5\\mathrm{g}"),
        ("\\mathrm{i}", "1"),
    ],
)
def test_upright_constants_keep_their_meaning(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False
