"""DynamoDB numbers: 38 significant digits, magnitude 1E-130 to below 1E+126, or zero.

In memory a number is its *normal form*: plain decimal text, as the service returns it. One value has one
normal form: no exponent, no leading `+` or needless zeros, no trailing zeros of a fraction, zero without sign.

`encode_number` turns a normal form into bytes whose order is numeric order:

    number   = negative | zero | positive
    zero     = 0x02
    positive = 0x03 · exponent · pair* · 0x01
    negative = 0x01 · the bytes of the positive number after its sign, each subtracted from 0xFF
    exponent = power of ten of the first significant digit, plus 130 (one byte: -130..125 is 256 values)
    pair     = two significant digits as 0..99, plus 2; an odd last digit is followed by a 0

Every encoding ends by itself (none is a prefix of another), is at most 22 bytes, and these codes are never
reused: they are in the keys of stored items.

Sources: DynamoDB developer guide, "Data types: Number"; size rule and error texts as measured on the service.
"""

import re
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

from datamodel.errors import ValidationError
from datamodel.limits import NUMBER_DIGITS_MAX, NUMBER_EXPONENT_MAX, NUMBER_EXPONENT_MIN

NUMBER_ENCODING_SIZE_BYTES_MAX = 22

NOT_A_NUMBER = "The parameter cannot be converted to a numeric value"
OVERFLOW = (
    "Number overflow. Attempting to store a number with magnitude larger than supported range"
)
UNDERFLOW = (
    "Number underflow. Attempting to store a number with magnitude smaller than supported range"
)
TOO_MANY_DIGITS = "Attempting to store more than 38 significant digits in a Number"

# Texts that are in normal form whenever they are at most NUMBER_DIGITS_MAX characters long; nearly all are.
_match_normal = re.compile(r"0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]", re.ASCII).fullmatch
_match_number = re.compile(
    r"([+-]?)(?:([0-9]++)(?:\.([0-9]*+))?|\.([0-9]++))(?:[eE]([+-]?)([0-9]++))?", re.ASCII
).fullmatch

# The service reads exponents as 64-bit integers; with any other the text is no number.
_EXPONENTS = range(-(2**63), 2**63)
_EXPONENT_DIGITS_MAX = 19
_INT_MAX = 2**31 - 1
_INTS = range(-_INT_MAX - 1, _INT_MAX + 1)


def normalise_number(text: str) -> str:
    """The normal form of a number as a client wrote it.

    Accepts an optional sign, digits with an optional point (`.5` and `5.` too) and an optional exponent. Zero
    with an exponent is as large as that exponent says: `0e126` overflows.

    Raises:
        ValidationError: Not a number, out of range, or more than 38 significant digits.
    """
    if len(text) <= NUMBER_DIGITS_MAX and _match_normal(text) is not None:
        return text
    return _normalise_slowly(text)


def _normalise_slowly(text: str) -> str:
    match = _match_number(text)
    if match is None:
        message = f"{NOT_A_NUMBER}: {text}"
        raise ValidationError(message if text else NOT_A_NUMBER, newer=message)
    sign, whole, fraction, bare_fraction, exponent_sign, exponent_digits = match.groups()
    if bare_fraction is not None:
        whole, fraction = "", bare_fraction
    fraction = fraction or ""
    power = 0
    if exponent_digits is not None:
        exponent_digits = exponent_digits.lstrip("0") or "0"
        # The text of more digits must not even become a number.
        if len(exponent_digits) <= _EXPONENT_DIGITS_MAX:
            power = int(exponent_sign + exponent_digits)
        if len(exponent_digits) > _EXPONENT_DIGITS_MAX or power not in _EXPONENTS:
            raise ValidationError(f"{NOT_A_NUMBER}: {text}")
    digits = (whole + fraction).lstrip("0")
    if abs(power) > _INT_MAX - len(text):
        raise _far_out(text, power, max(len(digits), 1), len(fraction) - power)
    if not digits:
        _check_range(power, 0)
        return "0"
    # Power of ten of the first significant digit.
    first = len(digits) - len(fraction) - 1 + power
    digits = digits.rstrip("0")
    _check_range(first, len(digits))
    return _plain(sign == "-", digits, first)


def _far_out(text: str, power: int, precision: int, scale: int) -> ValidationError:
    """The error for a number with an exponent near the ends of 32 bits, or past them.

    In Java's BigDecimal exponent and scale have 32 bits, and so has what the service compares with the limits: that
    wraps around.
    """
    message = OVERFLOW if power > 0 else UNDERFLOW
    as_java = None
    if power not in _INTS or scale not in _INTS:
        as_java = f"{NOT_A_NUMBER}: {text}"
    elif precision - scale > _INT_MAX:
        as_java = UNDERFLOW
    return ValidationError(message, as_java=as_java)


def _check_range(first: int, digit_count: int) -> None:
    if first > NUMBER_EXPONENT_MAX:
        raise ValidationError(OVERFLOW)
    if first < NUMBER_EXPONENT_MIN:
        raise ValidationError(UNDERFLOW)
    if digit_count > NUMBER_DIGITS_MAX:
        raise ValidationError(TOO_MANY_DIGITS)


def _plain(is_negative: bool, digits: str, first: int) -> str:
    """Plain decimal text of significant digits (neither end a zero), the first worth 10**first."""
    whole_count = first + 1
    if whole_count <= 0:
        text = "0." + "0" * -whole_count + digits
    elif whole_count >= len(digits):
        text = digits + "0" * (whole_count - len(digits))
    else:
        text = digits[:whole_count] + "." + digits[whole_count:]
    return "-" + text if is_negative else text


def number_size(normalised: str) -> int:
    """Bytes that a number counts for in its item's size.

    Leading and trailing zeros do not count; the rest takes half a byte per digit, whole and fraction rounded
    up apart, plus one byte, plus one for a minus sign. Measured on the service: `3.14159` is 5, `123456` 4.
    """
    size = 1
    if normalised[0] == "-":
        normalised = normalised[1:]
        size = 2
    whole, point, fraction = normalised.partition(".")
    if not point:
        return size + (len(whole.strip("0")) + 1 >> 1)
    if whole == "0":
        return size + (len(fraction.lstrip("0")) + 1 >> 1)
    return size + (len(whole) + 1 >> 1) + (len(fraction) + 1 >> 1)


_PAIR_CODES = {f"{pair:02}": pair + 2 for pair in range(100)} | {
    str(digit): digit * 10 + 2 for digit in range(10)
}
_INVERTED = bytes(0xFF - byte for byte in range(256))
_ZERO = b"\x02"


def encode_number(normalised: str) -> bytes:
    """Bytes of a number in normal form: a < b gives smaller bytes, equal numbers give equal bytes.

    Returns:
        At most 22 bytes (see the module's grammar); none is a prefix of another.
    """
    if normalised == "0":
        return _ZERO
    is_negative = normalised[0] == "-"
    if is_negative:
        normalised = normalised[1:]
    whole, point, fraction = normalised.partition(".")
    if not point:
        first = len(whole) - 1
        digits = whole.rstrip("0")
    elif whole != "0":
        first = len(whole) - 1
        digits = whole + fraction
    else:
        digits = fraction.lstrip("0")
        first = len(digits) - len(fraction) - 1
    codes = _PAIR_CODES
    body = bytes(
        [
            first - NUMBER_EXPONENT_MIN,
            *[codes[digits[at : at + 2]] for at in range(0, len(digits), 2)],
            0x01,
        ]
    )
    return b"\x01" + body.translate(_INVERTED) if is_negative else b"\x03" + body


# Wide enough to add any two numbers exactly: 256 powers of ten and 38 digits.
_EXACT = Context(prec=400, traps=[Inexact, InvalidOperation, Overflow])


def to_decimal(text: str) -> Decimal:
    """The exact value of a number in normal form."""
    return Decimal(text)


def _normal_result(value: Decimal) -> str:
    """The normal form of an exact result.

    The service calls a result of too many digits an overflow, whatever its magnitude.
    """
    sign, digit_tuple, exponent = value.as_tuple()
    assert isinstance(exponent, int), "sums of finite numbers are finite"
    digits = "".join(map(str, digit_tuple)).lstrip("0")
    if not digits:
        return "0"
    first = len(digits) - 1 + exponent
    digits = digits.rstrip("0")
    if len(digits) > NUMBER_DIGITS_MAX:
        raise ValidationError(OVERFLOW)
    _check_range(first, len(digits))
    return _plain(sign == 1, digits, first)


def add_numbers(a: str, b: str) -> str:
    """The exact sum of two numbers in normal form, in normal form.

    Raises:
        ValidationError: The sum is out of range or needs more than 38 significant digits.
    """
    if len(a) < 19 and len(b) < 19 and "." not in a and "." not in b:
        return str(int(a) + int(b))
    return _normal_result(_EXACT.add(Decimal(a), Decimal(b)))


def subtract_numbers(a: str, b: str) -> str:
    """The exact difference `a - b` of two numbers in normal form, in normal form.

    Raises:
        ValidationError: The difference is out of range or needs more than 38 significant digits.
    """
    if len(a) < 19 and len(b) < 19 and "." not in a and "." not in b:
        return str(int(a) - int(b))
    return _normal_result(_EXACT.subtract(Decimal(a), Decimal(b)))
