"""Codes of 1 to 8 bits packed into little-endian 32-bit words, and packed matrices that lie the wrong way round."""

from __future__ import annotations

import numpy as np

from ...kernels.lanes import kernel
from . import mapped


@kernel
def unpack(stream, width, per_word, first, levels):  # type: ignore[no-untyped-def]
    """One code a byte.

    stream : uint8[n, n_bytes], a row's words in memory order
    width : int64, bits of a code, 1 to 8
    per_word : int64, codes of a word whose top bits are unused; 0 when the codes follow each other without a gap
    first : int64, number of the first code wanted
    levels : uint8[n, n_codes]
    """
    mask = np.uint32((1 << width) - 1)
    for r in range(len(levels)):
        row, target = stream[r], levels[r]
        last = np.uint64(len(row) - 1)
        for i in range(len(target)):
            j = np.uint64(first + i)
            if per_word:
                p = j // np.uint64(per_word) * np.uint64(32) + j % np.uint64(per_word) * np.uint64(width)
            else:
                p = j * np.uint64(width)
            at = p >> np.uint64(3)
            after = at + np.uint64(1) if at < last else at
            pair = np.uint32(row[at]) | np.uint32(row[after]) << np.uint32(8)
            target[i] = np.uint8((pair >> np.uint32(p & np.uint64(7))) & mask)


@kernel
def unpack_four(stream, levels):  # type: ignore[no-untyped-def]
    """Codes of four bits from the first on, low half of a byte first.

    stream : uint8[n, at least n_codes / 2]
    levels : uint8[n, n_codes]
    """
    low, four = np.uint8(15), np.uint8(4)
    for r in range(len(levels)):
        row, target = stream[r], levels[r]
        n = len(target) // 2
        for i in range(n):
            target[2 * i] = row[i] & low
            target[2 * i + 1] = row[i] >> four
        if len(target) % 2:
            target[2 * n] = row[n] & low


@kernel
def turn_words(words, out):  # type: ignore[no-untyped-def]
    """Columns of words become rows.

    words : uint8[n_words, 4 n], any stride between rows
    out : uint8[n, 4 n_words]
    """
    for start in range(0, len(out), 16):
        stop = min(start + 16, len(out))
        for w in range(len(words)):
            row = words[w]
            for c in range(start, stop):
                for b in range(4):
                    out[c, 4 * w + b] = row[4 * c + b]


@kernel
def turn_interleaved(words, out):  # type: ignore[no-untyped-def]
    """AWQ: columns of eight four-bit codes a word, stored in the order 0 2 4 6 1 3 5 7, become rows of codes.

    words : uint8[n_rows, 4 n], any stride between rows; n_rows even
    out : uint8[8 n, n_rows / 2], codes of a row one after the other, low half of a byte first
    """
    low, four = np.uint8(15), np.uint8(4)
    for w in range(words.shape[1] // 4):
        for k in range(len(words) // 2):
            first, second = words[2 * k, 4 * w : 4 * w + 4], words[2 * k + 1, 4 * w : 4 * w + 4]
            for b in range(4):
                # Byte b holds stored places 2 b and 2 b + 1: columns 4 b and 4 b + 2, of which the odd ones wrap by 7.
                even = 4 * b if b < 2 else 4 * b - 7
                a, c = first[b], second[b]
                out[8 * w + even, k] = (a & low) | np.uint8(c << four)
                out[8 * w + even + 2, k] = (a >> four) | (c & np.uint8(0xF0))


def warm_up() -> None:
    """Compile all kernels of this file."""
    unpack(mapped(1, 4), 3, 0, 0, np.zeros((1, 1), np.uint8))
    unpack_four(mapped(1, 4), np.zeros((1, 1), np.uint8))
    for words in (mapped(2, 8)[:, :4], mapped(2, 4)):  # some columns of a matrix, and all of them
        turn_words(words, np.zeros((1, 8), np.uint8))
        turn_interleaved(words, np.zeros((8, 1), np.uint8))
