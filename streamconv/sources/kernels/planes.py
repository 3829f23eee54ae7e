"""Numbers of two bytes as two planes of bytes, and back.

Each number is rotated left by one bit, so that its sign goes behind the mantissa and all bits of a bfloat16's exponent are in
one byte. The upper bytes come first, then the lower ones: exponents repeat and compress, mantissas do not.
"""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import kernel

_ONE, _SEVEN = np.uint8(1), np.uint8(7)


@kernel
def split(data, planes):  # type: ignore[no-untyped-def]
    """Fill ``planes`` with the two planes of ``data``.

    data : uint8[2 n], little-endian numbers of two bytes
    planes : uint8[2 n], the rotated upper bytes, then the rotated lower bytes
    """
    n = len(data) // 2
    upper, lower = planes[:n], planes[n:]
    for i in range(n):
        low, high = data[2 * i], data[2 * i + 1]
        upper[i] = np.uint8(high << _ONE) | np.uint8(low >> _SEVEN)
        lower[i] = np.uint8(low << _ONE) | np.uint8(high >> _SEVEN)


@kernel
def join(planes, data):  # type: ignore[no-untyped-def]
    """Fill ``data`` with the numbers whose planes ``split`` made.

    planes : uint8[2 n], the rotated upper bytes, then the rotated lower bytes
    data : uint8[2 n], little-endian numbers of two bytes
    """
    n = len(data) // 2
    upper, lower = planes[:n], planes[n:]
    for i in range(n):
        high, low = upper[i], lower[i]
        data[2 * i] = np.uint8(low >> _ONE) | np.uint8(high << _SEVEN)
        data[2 * i + 1] = np.uint8(high >> _ONE) | np.uint8(low << _SEVEN)
