"""The number types of safetensors files, and how each becomes float32.

Exact wherever float32 can hold the value; 64-bit and 32-bit integers and F64 round to nearest even, and what is beyond the
range becomes infinite. Data are little-endian and may lie at any byte offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rows import Bytes, Floats

#: ``(words, out)``, both [n_rows, n_cols]; fills ``out``, which may have any strides
Widen = Callable[[NDArray[Any], Floats], None]

#: the smallest binary16 number, shifted into place as in ``_scaled``: a subnormal float32
_SUBNORMAL = np.array([1 << 13], np.uint32).view(np.float32)


@dataclass(frozen=True)
class StoredType:
    """One number type.

    Attributes
    ----------
    name : spelling of the file format
    bits : size of one number
    word : numpy type the bytes are viewed as; None when a number is not whole bytes
    widen : the conversion, or None for what cannot be (complex numbers) or is not (4 and 6 bits) one float32 per number
    """

    name: str
    bits: int
    word: np.dtype[Any] | None = None
    widen: Widen | None = None


def _cast(words: NDArray[Any], out: Floats) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, words, casting="unsafe")


def _bool(words: NDArray[Any], out: Floats) -> None:
    np.copyto(out, words != 0)


def _bf16(words: NDArray[Any], out: Floats) -> None:
    """A bfloat16 is the upper half of a float32."""
    bits = out.view(np.uint32)
    np.copyto(bits, words)
    np.left_shift(bits, 16, out=bits)


def _scaled(shift: int, keep: int, scale: float, limit: float, exact: Widen) -> Widen:
    """Widen a sign-exponent-mantissa format by moving its fields into place and multiplying by a power of two.

    After the shift the exponent field holds the old exponent, so the number is too small by the difference of the biases, and
    one multiplication repairs normal and subnormal numbers alike. Codes for infinity and NaN come out as ordinary numbers of
    magnitude ``limit`` or more; a tile that has any is done again by ``exact``.
    This is 4 times as fast as numpy's cast from float16 and needs no table.

    Parameters
    ----------
    shift : left shift of the sign-extended word that brings its mantissa to the top of float32's
    keep : mask that removes the copies of the sign
    scale : 2 ** (difference of the exponent biases)
    limit : magnitude of the smallest special code
    exact : slow conversion of the same words
    """
    factor = np.float32(scale)
    mask = np.uint32(keep).view(np.int32)

    def widen(words: NDArray[Any], out: Floats) -> None:
        # A library that was built with -ffast-math may have set the processor to read subnormals as zero.
        if not (_SUBNORMAL * factor)[0]:
            return exact(words, out)
        bits = out.view(np.int32)
        np.copyto(bits, words)
        np.left_shift(bits, shift, out=bits)
        np.bitwise_and(bits, mask, out=bits)
        np.multiply(out, factor, out=out)
        if out.size and (out.max() >= limit or out.min() <= -limit):
            exact(words, out)
        return None

    return widen


def _by_table(table: Floats) -> Widen:
    def widen(words: NDArray[Any], out: Floats) -> None:
        out[...] = table[words.view(np.uint8)]

    return widen


def _float8_table(exponent_bits: int, bias: int, nan: frozenset[int], infinite: frozenset[int] = frozenset()) -> Floats:
    """All 256 values of an 8-bit format with a sign bit; ``nan`` and ``infinite`` list codes."""
    mantissa_bits = 7 - exponent_bits
    table = np.empty(256, np.float32)
    for code in range(256):
        exponent = code >> mantissa_bits & (1 << exponent_bits) - 1
        mantissa = code & (1 << mantissa_bits) - 1
        if exponent:
            mantissa += 1 << mantissa_bits
        value = mantissa * 2.0 ** (max(exponent, 1) - bias - mantissa_bits)
        if code in nan:
            value = np.nan
        elif code in infinite:
            value = np.inf
        table[code] = -value if code & 0x80 else value
    return table


def _float16_exact(words: NDArray[Any], out: Floats) -> None:
    np.copyto(out, words.view(np.dtype("<f2")))


_E4M3 = _float8_table(4, 7, nan=frozenset({0x7F, 0xFF}))
_E5M2 = _float8_table(5, 15, nan=frozenset({0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}), infinite=frozenset({0x7C, 0xFC}))
_E4M3FNUZ = _float8_table(4, 8, nan=frozenset({0x80}))
_E5M2FNUZ = _float8_table(5, 16, nan=frozenset({0x80}))
#: an exponent alone: 2 ** (code - 127)
_E8M0 = np.array([*(2.0 ** (code - 127) for code in range(255)), np.nan], np.float32)


def _type(name: str, word: str, widen: Widen | None) -> StoredType:
    dtype = np.dtype(word)
    return StoredType(name, dtype.itemsize * 8, dtype, widen)


#: by the name written in the file
STORED_TYPES: dict[str, StoredType] = {
    t.name: t
    for t in (
        _type("F32", "<f4", _cast),
        _type("F64", "<f8", _cast),
        _type("F16", "<i2", _scaled(13, 0x8FFFE000, 2.0**112, 2.0**16, _float16_exact)),
        _type("BF16", "<u2", _bf16),
        _type("F8_E4M3", "i1", _scaled(20, 0x87F00000, 2.0**120, 480, _by_table(_E4M3))),
        _type("F8_E5M2", "i1", _scaled(21, 0x8FE00000, 2.0**112, 2.0**16, _by_table(_E5M2))),
        _type("F8_E4M3FNUZ", "u1", _by_table(_E4M3FNUZ)),
        _type("F8_E5M2FNUZ", "u1", _by_table(_E5M2FNUZ)),
        _type("F8_E8M0", "u1", _by_table(_E8M0)),
        _type("BOOL", "u1", _bool),
        _type("U8", "u1", _cast),
        _type("I8", "i1", _cast),
        _type("U16", "<u2", _cast),
        _type("I16", "<i2", _cast),
        _type("U32", "<u4", _cast),
        _type("I32", "<i4", _cast),
        _type("U64", "<u8", _cast),
        _type("I64", "<i8", _cast),
        _type("C64", "<c8", None),
        StoredType("F4", 4),
        StoredType("F6_E2M3", 6),
        StoredType("F6_E3M2", 6),
    )
}


def widen(dtype: str, data: Bytes, out: Floats) -> None:
    """Fill ``out`` float32[n_rows, n_cols] from ``data`` uint8[n_rows, row_bytes], both of type ``dtype``.

    KeyError when the type has no conversion to float32.
    """
    stored = STORED_TYPES[dtype]
    if stored.widen is None or stored.word is None:
        raise KeyError(dtype)
    stored.widen(data.view(stored.word), out)
