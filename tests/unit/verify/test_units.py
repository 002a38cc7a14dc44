"""Units: all spellings of a unit are equal, a unit may be missing, and a different one is wrong."""

import pytest

from offsft.verify.math import equal


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("4\\text{ square centimeters}", "4\\text{ cm}^2"),
        ("4 sq cm", "4\\text{ cm}^2"),
        ("4 centimeters squared", "4\\,\\mathrm{cm}^2"),
        ("60\\text{ mph}", "60\\text{ miles per hour}"),
        ("60 mi/h", "60 mph"),
        ("3\\text{ L}", "3\\text{ liters}"),
        ("3 litres", "3 L"),
        ("5 km/h", "5 kilometers per hour"),
        ("5\\text{ m/s}", "5 \\frac{\\text{m}}{\\text{s}}"),
        ("5\\text{ m s}^{-1}", "5 meters per second"),
        ("9.8\\text{ m/s}^2", "9.8\\text{ meters per second squared}"),
        ("5 cubic meters", "5\\text{ m}^3"),
        ("5 ft^2", "5 square feet"),
        ("3 hrs", "3 hours"),
        ("30 min.", "30 minutes"),
        ("5\\text{ kg}", "5 kilograms"),
        ("45^\\circ", "45 degrees"),
        ("25°C", "25 degrees Celsius"),
        ("\\$5.00", "5 dollars"),
        ("5 USD", "$5"),
        ("5\\text{ kWh}", "5 kilowatthours"),
        ("6 inches", "6\\text{ in}"),
        ("11 a.m.", "11 am"),
        ("2 boxes", "2 box"),
        ("3 berries", "3 berry"),
        ("10 Ω", "10\\text{ ohms}"),
        ("5 μm", "5 micrometers"),
        ("3 glasses", "3 glass"),
    ],
)
def test_one_unit_in_two_spellings_is_one_unit(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("125\\textnormal{ miles}", "125"),
        ("125\\mbox{ miles}", "125"),
        ("125\\textrm{ miles}", "125"),
        ("125\\text{ miles}", "125"),
        ("9 (apples)", "9"),
        ("7 (10-dollar bills)", "7"),
        ("13/25 (of the cake)", "\\frac{13}{25}"),
        ("12 ($)", "12"),
        ("1320 km", "1320"),
        ("5\\mathrm{~cm}", "5"),
        ("1.5\\text{ hours}", "\\frac{3}{2}"),
        ("70,000 in profit", "70000"),
        ("5 m/s", "5"),
        ("8\\text{ min}", "8"),
        ("8 min (about)", "8"),
        ("5\\text{ sec}", "5"),
        ("166\\text{ cm^2}", "166"),
        ("4.2\\text{ %}", "4.2"),
        ("4.2", "4.2\\%"),
    ],
)
def test_a_unit_may_be_missing(found, reference):
    assert equal(found, reference) is True
    assert equal(reference, found) is True


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("5\\text{ cm}", "5\\text{ cm}^2"),
        ("3\\text{ L}", "3\\text{ g}"),
        ("60 mph", "60 km/h"),
        ("5 m", "5 kilograms"),
        ("25°C", "25°F"),
        ("5\\text{ mL}", "5\\text{ L}"),
        ("9 (apples)", "9 (pears)"),
        ("9 (apples)", "8"),
        ("\\text{5 MW}", "\\text{5 mW}"),
    ],
)
def test_another_unit_is_wrong(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


@pytest.mark.parametrize(
    ("found", "reference"),
    [
        ("5m", "5"),
        ("5 x", "5"),
        ("2n", "2"),
        ("5 m", "6"),
    ],
)
def test_a_letter_at_a_number_is_a_variable(found, reference):
    assert equal(found, reference) is False
    assert equal(reference, found) is False


def test_a_single_letter_behind_a_number_is_a_unit_where_the_reference_is_a_number():
    assert equal("5 m", "5")
    assert equal("5 L", "5.0")
    assert not equal("5", "5 m"), "the reference may be five times m"


@pytest.mark.parametrize(
    "gloss", ["apples", "ft", "cm", "kg", "m", "g", "GB", "times", "third graders", "fourth graders"]
)
def test_what_a_number_counts_may_be_in_brackets_behind_it(gloss):
    assert equal("107", f"107 ({gloss})")
    assert equal(f"107 ({gloss})", "107")
    assert not equal("108", f"107 ({gloss})")


def test_a_unit_in_brackets_is_a_unit_and_a_variable_there_is_none():
    assert not equal("10 (kg)", "10 (g)")
    assert not equal("10", "10 (x)")
    assert not equal("7", "7 (half hours)")
