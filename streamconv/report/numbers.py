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


def fixed(x: float, digits: int) -> str:
    """``x`` with so many significant digits, be they zeros, as in a column.

    >>> fixed(8.5, 3), fixed(7, 2), fixed(100, 2), fixed(0.00621, 2), fixed(0, 2)
    ('8.50', '7.0', '100', '0.0062', '0')
    """
    return f"{x:#.{digits}g}".rstrip(".") if 1e-4 <= abs(x) < 10**digits else number(x, digits)


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent, with so many significant digits or as few as there are.

    >>> percent(0.0712, 2), percent(1), percent(0.00004), percent(0.07, 2)
    ('7.1 %', '100 %', '0.004 %', '7.0 %')
    """
    return f"{fixed(100 * share, digits) if digits else number(100 * share)} %"


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


def spread(value: float, uncertainty: float) -> str:
    """The standard deviation alone, as it is written beside ``value``.

    >>> spread(0.00752, 0.000095), spread(8.77e-6, 1.5e-7)
    ('0.000095', '1.5 × 10⁻⁷')
    """
    told = uncertain(value, uncertainty)
    return number(uncertainty, 2) if "(" in told or "±" not in told else told.partition(" ± ")[2]


def _fixed(value: float, uncertainty: float, unit: float) -> str:
    value, uncertainty = value / unit, uncertainty / unit
    decimals = min(9, max(0, 1 - math.floor(math.log10(uncertainty))))
    return f"{value:.{decimals}f} ± {uncertainty:.{decimals}f}".replace("-", "−")


#: of sizes and of times, the largest first
BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
SECONDS = ((7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


def byte_unit(n_bytes: float) -> tuple[int, str]:
    """The unit that ``n_bytes`` are told in, and its name."""
    return next((unit for unit in BYTES if n_bytes >= unit[0]), BYTES[-1])


def time_unit(seconds: float) -> tuple[int, str]:
    """The unit in seconds that ``seconds`` are told in, and its name."""
    return next((unit, name) for least, unit, name in SECONDS if seconds >= least)
