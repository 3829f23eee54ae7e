"""Whether there is memory for libraries that end the process, rather than raise, where there is none: OpenBLAS, LLVM."""

from __future__ import annotations

import mmap
import sys

_MIB = 1 << 20
#: addresses that loading numpy and what else every command needs takes, measured with margin (numpy 2: 110)
_NUMPY_BYTES = 128 * _MIB
#: the same of the compiler (numba 0.62 to 0.66: 220)
_COMPILER_BYTES = 256 * _MIB
#: memory that compiling the kernels of one module takes, measured with margin (Q4_K, the largest: 75)
_COMPILING_BYTES = 128 * _MIB


def require_room_for_numpy() -> None:
    """Raise MemoryError where the system would refuse what importing numpy is going to take."""
    if "numpy" not in sys.modules:
        _try("loading numpy", _NUMPY_BYTES, 0)


def require_room_for_kernels() -> None:
    """Raise MemoryError where the system would refuse what compiling the next module of kernels is going to take."""
    loading = 0 if "numba" in sys.modules else _COMPILER_BYTES - _COMPILING_BYTES
    _try("compiling kernels", loading, _COMPILING_BYTES)


def _try(what: str, mapped_bytes: int, written_bytes: int) -> None:
    """Ask for addresses, most of which will only be mapped (code), and for memory; and give both back."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return  # Windows
    taken = []
    try:
        for size, protection in ((mapped_bytes, 0), (written_bytes, mmap.PROT_WRITE)):
            if size:
                protection |= mmap.PROT_READ
                taken.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=protection))
    except (OSError, MemoryError):
        raise MemoryError(f"{what} takes up to {(mapped_bytes + written_bytes) // _MIB} MiB") from None
    finally:
        for piece in taken:
            piece.close()
