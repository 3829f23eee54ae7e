"""Numbers for people: few digits, plain signs."""

from __future__ import annotations

import math

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(x: float, digits: int = 3) -> str:
    """``x`` with so many significant digits; very large and very small ones with a power of ten.

    >>> number(0.012345), number(8.5), number(0), number(1234567), number(-0.0000123), number(2048)
    ('0.0123', '8.5', '0', '1.23 × 10⁶', '−1.23 × 10⁻⁵', '2048')
    """
    if x != x:
        return "undefined"
    if x in (math.inf, -math.inf):
        return "∞" if x > 0 else "−∞"
    sign = "−" if x < 0 else ""
    x = abs(x)
    if x == int(x) and x < 100_000:
        return f"{sign}{int(x)}"
    if 1e-4 <= x < 100_000:
        if x >= 10 ** (digits - 1):
            return f"{sign}{x:.0f}"
        return sign + (f"{x:.{digits}g}")
    mantissa, _, power = f"{x:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{sign}{'' if mantissa == '1' else f'{mantissa} × '}10{str(int(power)).translate(_RAISED)}"


def percent(share: float, digits: int = 2) -> str:
    """A share in per cent.

    >>> percent(0.0712), percent(1), percent(0.00004)
    ('7.1 %', '100 %', '0.004 %')
    """
    return f"{number(100 * share, digits if abs(share) < 1 else 3)} %"


def power(x: float) -> str:
    """``x`` at the tick of a logarithmic axis.

    >>> power(1e-5), power(0.01), power(1.0), power(0.002)
    ('10⁻⁵', '10⁻²', '1', '0.002')
    """
    exponent = math.log10(x) if x > 0 else 0.5
    if x == 1 or abs(exponent - round(exponent)) > 1e-9:
        return number(x)
    return f"10{str(round(exponent)).translate(_RAISED)}"


def uncertain(value: float, uncertainty: float | None) -> str:
    """A value and its standard deviation, both with the digits that the latter leaves.

    >>> uncertain(0.051234, 0.00123), uncertain(253.44, 12.02), uncertain(2.5, None), uncertain(0, 0)
    ('0.0512 ± 0.0012', '253 ± 12', '2.5', '0')
    >>> uncertain(8.77e-6, 1.5e-7)
    '(8.77 ± 0.15) × 10⁻⁶'
    """
    if not uncertainty:
        return number(value)
    exponent = math.floor(math.log10(abs(value))) if value else 0
    if exponent < -4:
        return f"({_fixed(value, uncertainty, 10.0**exponent)}) × 10{str(exponent).translate(_RAISED)}"
    return _fixed(value, uncertainty, 1.0)


def _fixed(value: float, uncertainty: float, unit: float) -> str:
    value, uncertainty = value / unit, uncertainty / unit
    decimals = min(9, max(0, 1 - math.floor(math.log10(uncertainty))))
    return f"{value:.{decimals}f} ± {uncertainty:.{decimals}f}".replace("-", "−")
