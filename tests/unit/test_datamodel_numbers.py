"""Numbers: normal form, size, order-preserving bytes and exact arithmetic."""

from decimal import Context, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ValidationError
from datamodel.numbers import (
    NOT_A_NUMBER,
    NUMBER_ENCODING_SIZE_BYTES_MAX,
    add_numbers,
    encode_number,
    normalise_number,
    number_size,
    subtract_numbers,
    to_decimal,
)

WIDE = Context(prec=1000)
OVERFLOW = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)
UNDERFLOW = (
    "Number underflow. Attempting to store a number with magnitude smaller than supported range"
)
DIGITS = "Attempting to store more than 38 significant digits in a Number"
NINES = "9." + "9" * 37 + "E+125"


def numbers():
    """Decimals that DynamoDB can hold, small ones often."""
    wide = st.builds(
        lambda sign, digits, first: Decimal(
            (sign, tuple(map(int, digits)), first - len(digits) + 1)
        ),
        st.integers(0, 1),
        st.from_regex(r"[1-9][0-9]{0,37}", fullmatch=True),
        st.integers(-130, 125),
    )
    small = st.integers(-1000, 1000).map(Decimal)
    cents = st.integers(-1000, 1000).map(lambda n: Decimal(n).scaleb(-2))
    return wide | small | cents


def normal(value: Decimal) -> str:
    return normalise_number(str(value)) if value else "0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("+0", "0"),
        ("0.000", "0"),
        ("0e5", "0"),
        ("-0.0E-130", "0"),
        ("0e125", "0"),
        ("5", "5"),
        ("+5", "5"),
        ("-5", "-5"),
        ("005", "5"),
        ("-007.50", "-7.5"),
        ("5.", "5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("1.0", "1"),
        ("100", "100"),
        ("100.00", "100"),
        ("1e2", "100"),
        ("1E2", "100"),
        ("1e+2", "100"),
        ("1e002", "100"),
        ("1.5e3", "1500"),
        ("1.5e1", "15"),
        ("1.25e1", "12.5"),
        ("123e-2", "1.23"),
        ("120e-2", "1.2"),
        ("5e-3", "0.005"),
        ("0.0000001", "0.0000001"),
        ("1E125", "1" + "0" * 125),
        ("1E-130", "0." + "0" * 129 + "1"),
        (NINES, "9" * 38 + "0" * 88),
        ("-" + NINES, "-" + "9" * 38 + "0" * 88),
        ("1" * 38, "1" * 38),
        ("1" * 38 + "000", "1" * 38 + "000"),
        ("0" * 100 + "1" * 38, "1" * 38),
        ("0." + "1" * 38, "0." + "1" * 38),
    ],
)
def test_normal_form(text, expected):
    assert normalise_number(text) == expected
    assert normalise_number(expected) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The parameter cannot be converted to a numeric value"),
        *[
            (text, f"The parameter cannot be converted to a numeric value: {text}")
            for text in (
                *("b", " ", " 1", "1 ", "1\n", "NaN", "Infinity", "-inf", "0x10", "1_000", "1,5"),
                *("--1", "+-1", "1e", "e5", ".", "-", "+", "1.2.3", "1e5.5", "١", "1e٣", "１", "²"),
            )
        ],
        ("1e126", OVERFLOW),
        ("-1e126", OVERFLOW),
        ("10" + "0" * 125, OVERFLOW),
        ("1e9223372036854775808", f"{NOT_A_NUMBER}: 1e9223372036854775808"),
        ("1e-9223372036854775809", f"{NOT_A_NUMBER}: 1e-9223372036854775809"),
        ("1e" + "9" * 5000, f"{NOT_A_NUMBER}: 1e" + "9" * 5000),
        ("0e126", OVERFLOW),
        ("-0e-131", UNDERFLOW),
        ("1e-131", UNDERFLOW),
        ("-1e-131", UNDERFLOW),
        ("0." + "0" * 130 + "1", UNDERFLOW),
        ("123456789012345678901234567890123456789", DIGITS),
        ("-1.23456789012345678901234567890123456789", DIGITS),
        ("1" + "0" * 37 + "1", DIGITS),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValidationError) as caught:
        normalise_number(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "as_java", "otherwise"),
    [
        ("1e2147483646", OVERFLOW, OVERFLOW),
        ("1e2147483647", UNDERFLOW, OVERFLOW),
        ("-10e2147483646", UNDERFLOW, OVERFLOW),
        (".1e2147483647", OVERFLOW, OVERFLOW),
        ("0e2147483647", UNDERFLOW, OVERFLOW),
        ("1e2147483648", f"{NOT_A_NUMBER}: 1e2147483648", OVERFLOW),
        ("1e-2147483647", UNDERFLOW, UNDERFLOW),
        ("1.5e-2147483647", f"{NOT_A_NUMBER}: 1.5e-2147483647", UNDERFLOW),
        ("1e-2147483648", f"{NOT_A_NUMBER}: 1e-2147483648", UNDERFLOW),
        ("1e99999999999", f"{NOT_A_NUMBER}: 1e99999999999", OVERFLOW),
        ("1e-9223372036854775808", f"{NOT_A_NUMBER}: 1e-9223372036854775808", UNDERFLOW),
        ("1e9223372036854775808", *[f"{NOT_A_NUMBER}: 1e9223372036854775808"] * 2),
    ],
)
def test_two_readings_of_numbers_far_out(text, as_java, otherwise):
    with pytest.raises(ValidationError) as caught:
        normalise_number(text)
    assert caught.value.newest == caught.value.message == otherwise
    assert (caught.value.as_java or otherwise) == as_java


def test_long_hostile_texts_take_linear_time():
    for text in ("1" * 1_000_000 + "x", "1." + "1" * 1_000_000 + "x", "0" * 1_000_000 + "e"):
        with pytest.raises(ValidationError):
            normalise_number(text)


@settings(max_examples=100)
@given(numbers(), st.booleans())
def test_normal_form_keeps_the_value_and_is_unique(value, scientific):
    text = f"{value:e}" if scientific else f"{value:f}"
    result = normalise_number(text)
    assert Decimal(result) == value
    assert result == normalise_number(result) == normal(value)
    assert to_decimal(result) == value
    assert not result.startswith(("+", ".", "-."))
    assert "e" not in result.lower()
    if "." in result:
        assert result[-1] not in "0."


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 1),
        ("1", 2),
        ("10", 2),
        ("1000", 2),
        ("12", 2),
        ("123", 3),
        ("123456", 4),
        ("-123456", 5),
        ("3.14159", 5),
        ("-1", 3),
        ("0.1", 2),
        ("0.001", 2),
        ("1.001", 4),
        ("100.5", 4),
        ("1E125", 2),
        ("1E-130", 2),
        (NINES, 20),
    ],
)
def test_size(text, size):
    assert number_size(normalise_number(text)) == size


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("0", "02"),
        ("1", "03 82 0c 01"),
        ("10", "03 83 0c 01"),
        ("12", "03 83 0e 01"),
        ("123", "03 84 0e 20 01"),
        ("0.5", "03 81 34 01"),
        ("-1", "01 7d f3 fe"),
        ("1E-130", "03 00 0c 01"),
        ("1E125", "03 ff 0c 01"),
        ("-1E125", "01 00 f3 fe"),
    ],
)
def test_stored_bytes_never_change(text, encoded):
    assert encode_number(normalise_number(text)) == bytes.fromhex(encoded)


def test_bytes_are_in_numeric_order():
    ascending = [
        *(
            "-" + NINES,
            "-1e125",
            "-1e38",
            "-101",
            "-100.5",
            "-100",
            "-99",
            "-10",
            "-9",
            "-2",
            "-1.23",
        ),
        *("-1.2003", "-1.2", "-1.1", "-1.0000001", "-1", "-0.5", "-0.05", "-1e-130", "0", "1e-130"),
        *("0.05", "0.5", "1", "1.0000001", "1.1", "1.2", "1.2003", "1.23", "2", "9", "10", "99"),
        *("100", "100.5", "101", "1e38", "1e125", NINES),
    ]
    encoded = [encode_number(normalise_number(text)) for text in ascending]
    assert encoded == sorted(encoded)
    assert len(set(encoded)) == len(ascending)


@settings(max_examples=200)
@given(numbers(), numbers())
def test_byte_order_is_numeric_order(a, b):
    left, right = encode_number(normal(a)), encode_number(normal(b))
    assert (left < right) == (a < b)
    assert (left == right) == (a == b)
    if a != b:
        assert not left.startswith(right)
    assert len(left) <= NUMBER_ENCODING_SIZE_BYTES_MAX


@pytest.mark.parametrize(
    ("a", "b", "total", "difference"),
    [
        ("1", "2", "3", "-1"),
        ("0", "0", "0", "0"),
        ("0.1", "0.2", "0.3", "-0.1"),
        ("5", "-5", "0", "10"),
        ("0.5", "0.5", "1", "0"),
        ("999999999999999999", "1", "1000000000000000000", "999999999999999998"),
        ("9" * 37, "1", "1" + "0" * 37, "9" * 36 + "8"),
    ],
)
def test_arithmetic(a, b, total, difference):
    assert add_numbers(a, b) == total
    assert subtract_numbers(a, b) == difference


@pytest.mark.parametrize(
    ("a", "b"), [("9e125", "9e125"), ("-9e125", "-9e125"), ("1e50", "1"), ("1e125", "1e-130")]
)
def test_a_result_that_does_not_fit_is_an_overflow(a, b):
    with pytest.raises(ValidationError) as caught:
        add_numbers(normalise_number(a), normalise_number(b))
    assert caught.value.message == OVERFLOW


@settings(max_examples=100)
@given(numbers(), numbers())
def test_arithmetic_is_exact_or_refused(a, b):
    for operate, exact in (
        (add_numbers, WIDE.add(a, b)),
        (subtract_numbers, WIDE.subtract(a, b)),
    ):
        try:
            result = operate(normal(a), normal(b))
        except ValidationError:
            assert (
                not -130 <= exact.adjusted() <= 125
                or len(exact.normalize(WIDE).as_tuple().digits) > 38
            )
        else:
            assert result == normal(exact)
