"""Whether there is memory for the compiler: LLVM does not raise where there is none, it ends the process."""

from __future__ import annotations

import mmap
import sys

_MIB = 1 << 20
#: addresses that loading the compiler takes, measured with margin (numba 0.62 to 0.66: 220)
_LOADING_BYTES = 256 * _MIB
#: memory that compiling the kernels of one module takes, measured with margin (Q4_K, the largest: 75)
_COMPILING_BYTES = 128 * _MIB


def require_room() -> None:
    """Raise MemoryError where the system would refuse what compiling the next module of kernels is going to take."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return  # Windows
    pieces = [(_COMPILING_BYTES, mmap.PROT_READ | mmap.PROT_WRITE)]
    if "numba" not in sys.modules:
        pieces.append((_LOADING_BYTES - _COMPILING_BYTES, mmap.PROT_READ))  # mostly code, which is only mapped
    taken = []
    try:
        for size, protection in pieces:
            taken.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=protection))
    except (OSError, MemoryError):
        need = sum(size for size, _ in pieces) // _MIB
        raise MemoryError(f"compiling kernels takes up to {need} MiB") from None
    finally:
        for piece in taken:
            piece.close()
