"""The executable specification of how the server prints floating-point numbers; the compiled code is compared with it."""

from __future__ import annotations

_FIXED_DIGITS = 15
"""A number is printed without an exponent while its point lies within this many digits, or among its own (MySQL, strings/dtoa.cc)."""


def double_text(value: float) -> bytes:
    """A DOUBLE with the fewest digits that give it back, in the server's form: 1e15, 0.00001, 1.5e-20."""
    sign, digits, exponent = _shortest(value)
    point = len(digits) + exponent
    if -_FIXED_DIGITS < point <= _FIXED_DIGITS or 0 < point < len(digits):
        if point <= 0:
            text = "0." + "0" * -point + digits
        elif exponent >= 0:
            text = digits + "0" * exponent
        else:
            text = digits[:point] + "." + digits[point:]
    else:
        text = digits[0] + ("." + digits[1:] if len(digits) > 1 else "") + f"e{point - 1}"
    return (sign + text).encode()


def _shortest(value: float) -> tuple[str, str, int]:
    """Sign, digits without leading or trailing zeros, and the power of ten they are multiplied by."""
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    exponent = int(power or 0) - len(fraction) + len(digits) - len(stripped)
    sign = "-" if str(value).startswith("-") else ""
    return (sign, stripped, exponent) if stripped else (sign, "0", 0)
