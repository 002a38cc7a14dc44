"""Numbers as answers: number words, small numbers, bases, repeating decimals."""

import pytest

from offsft.verify.math import equal


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("5 million", "5,000,000"),
        ("\\$1.2 \\text{ million}", "1200000"),
        ("2 billion", "2,000,000,000"),
        ("3 \\text{ halves}", "3/2"),
        ("2 dozen", "24"),
        ("3 thousand dollars", "3000"),
        ("2.5 billion people", "2500000000"),
        ("$5k", "5000"),
        ("1.5\\text{ million}", "1,500,000"),
        ("5\\times 10^6", "5 million"),
        ("7 hundredths", "0.07"),
        ("4 lakh", "400000"),
        ("\\frac{1}{2}\\text{ million}", "500000"),
        ("2 thirds of a cup", "2/3"),
    ],
)
def test_words_that_stand_for_a_number_multiply_it(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("5 million", "5"),
        ("5 million", "5 billion"),
        ("3 \\text{ halves}", "3"),
        ("2 dozen", "2"),
        ("5 thousand", "5 dollars"),
        ("$5k", "$5"),
        ("5k", "5000"),
        ("5k", "5"),
    ],
)
def test_a_number_is_not_the_same_number_with_a_number_word(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("seven", "7"),
        ("\\text{twelve}", "12"),
        ("twenty-five", "25"),
        ("two hundred and six", "206"),
        ("two thirds", "2/3"),
        ("one half", "0.5"),
        ("minus three", "-3"),
        ("Zero", "0"),
        ("a dozen", "12"),
        ("half a million", "500000"),
    ],
)
def test_a_number_in_words_is_that_number(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("seven", "8"),
        ("twenty-five", "20, 5"),
        ("and", "0"),
        ("hundred", "1"),
    ],
)
def test_other_words_are_no_number(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\frac{1}{2^{98}}", "\\frac{1}{2^{99}}"),
        ("0", "\\frac{1}{3000000}"),
        ("\\frac{1}{3\\cdot 2^{2006}}", "\\frac{2^{2005}+1}{3 \\cdot 2^{2006}}"),
        ("10^{-9}", "10^{-10}"),
        ("1e-7", "0"),
        ("\\frac{1}{100!}", "\\frac{1}{101!}"),
        ("\\frac{\\pi}{2^{98}}", "\\frac{\\pi}{2^{99}}"),
        ("\\frac{x}{2^{98}}", "\\frac{x}{2^{99}}"),
        ("\\binom{60}{30}", "\\binom{60}{30}+1"),
        ("\\frac{\\sqrt{2}}{10^{8}}", "0"),
        ("0.0000003", "\\frac{1}{3000000}"),
        ("1.0000001", "1"),
        ("\\frac{10000001}{10000000}", "1"),
    ],
)
def test_small_numbers_are_compared_exactly(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("\\frac{1}{2^{98}}", "2^{-98}"),
        ("10^{-20}", "\\frac{1}{10^{20}}"),
        ("\\frac{2}{4\\cdot 3}", "\\frac16"),
        ("5!", "120"),
        ("\\binom{5}{2}", "10"),
        ("2(3+4)", "14"),
        ("-2^2", "-4"),
        ("\\frac{1}{3\\cdot 2^{2006}}", "\\frac{2}{3\\cdot 2^{2007}}"),
    ],
)
def test_large_and_small_numbers_in_other_forms_are_the_same(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("0.333333", "\\frac{1}{3}"),
        ("0.142857", "1/7"),
        ("0.000000333333", "\\frac{1}{3000000}"),
        ("1.414214", "\\sqrt{2}"),
        ("3.141593", "\\pi"),
        ("2.666667", "\\frac{8}{3}"),
    ],
)
def test_a_decimal_stands_for_a_fraction_that_it_is_right_to_six_places_of(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("0.33", "1/3"),
        ("0.3333", "1/3"),
        ("1.41", "\\sqrt{2}"),
        ("3.14", "\\pi"),
        ("0.333334", "\\frac{1}{3}"),
    ],
)
def test_a_coarser_decimal_does_not(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("2516", "2516_8"),
        ("(204)_5", "204_5"),
        ("1011_{\\text{two}}", "1011_2"),
        ("1011_{two}", "1011"),
        ("FF_{16}", "\\text{FF}_{16}"),
        ("0xFF", "FF_{16}"),
        ("a3_{16}", "A3_{16}"),
        ("1101_{\\text{base }2}", "1101_2"),
        ("1101\\text{ (base }2)", "1101_2"),
        ("0b101", "101_2"),
        ("1011 (base 2)", "1011_{2}"),
        ("1011\\text{ base }2", "1011_2"),
        ("1011 in base 2", "1011_2"),
        ("1,011_2", "1011"),
        ("12A_{11}", "12a_{11}"),
    ],
)
def test_a_base_may_be_missing_and_is_written_in_many_ways(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("1011_3", "1011_2"),
        ("1011_2", "11"),
        ("1011_2", "1101_2"),
        ("204_5", "204_6"),
        ("10_{\\text{two}}", "10_{\\text{ten}}"),
        ("x_2", "2"),
        ("0x10", "10_8"),
    ],
)
def test_two_bases_or_two_numbers_of_one_base_differ(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("0.\\overline{3}", "\\frac{1}{3}"),
        ("0.1\\overline{6}", "1/6"),
        ("0.\\bar{3}", "1/3"),
        ("0.\\dot{3}", "1/3"),
        ("0.\\dot{1}4285\\dot{7}", "\\frac{1}{7}"),
        ("0.333...", "1/3"),
        ("0.142857142857\\ldots", "1/7"),
        ("0.(3)", "1/3"),
        (".\\overline{3}", "1/3"),
        ("0.3̅", "1/3"),
        ("2.\\overline{36}", "26/11"),
        ("-0.\\overline{3}", "-1/3"),
        ("0.\\overline{9}", "1"),
        ("12.\\overline{3}\\text{ cm}", "\\frac{37}{3}"),
    ],
)
def test_a_repeating_decimal_is_its_fraction(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("0.\\overline{3}", "0.3"),
        ("0.\\overline{36}", "0.36"),
        ("0.1\\overline{6}", "0.16"),
        ("0.\\overline{3}", "\\frac{3}{10}"),
    ],
)
def test_a_repeating_decimal_is_not_the_decimal_without_its_period(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False
