"""What the system grants this process, before it is needed: files, and memory and threads for libraries.

OpenBLAS and LLVM end the process, rather than raise, where they do not get what they ask for.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

from .units import MIB

#: addresses that loading numpy and what else every command needs takes, measured with margin (numpy 2: 110)
_NUMPY_BYTES = 128 * MIB
#: the same of the compiler (numba 0.62 to 0.66: 220)
_COMPILER_BYTES = 256 * MIB
#: memory that compiling the kernels of one module takes, measured with margin (Q4_K, the largest: 75)
_COMPILING_BYTES = 128 * MIB


def allow_many_files() -> None:
    """Raise the limit on open files as far as this user may: every shard of every model is open while it is read."""
    with suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for most in (hard, 1 << 20, 10240):  # the last ones where "unlimited" is more than the system takes
            if soft != resource.RLIM_INFINITY and (most > soft or most == resource.RLIM_INFINITY):
                with suppress(OSError, ValueError):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                    return


def use_no_threads_of_libraries() -> None:
    """Let numpy's and the tokenizers' libraries start none: they end the process where the system grants too few.

    Nothing is lost: the work is done by kernels and threads of our own.
    """
    if "numpy" in sys.modules:
        return  # it has started them, and what is called from there is not our business
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def require_room_for_numpy() -> None:
    """Raise MemoryError where the system would refuse what importing numpy is going to take."""
    if "numpy" not in sys.modules:
        _try("loading numpy", _NUMPY_BYTES, 0)


def require_room_for_kernels() -> None:
    """Raise MemoryError where the system would refuse what compiling the next module of kernels is going to take."""
    loading = 0 if "numba" in sys.modules else _COMPILER_BYTES - _COMPILING_BYTES
    _try("compiling kernels", loading, _COMPILING_BYTES)


def _try(what: str, mapped_bytes: int, written_bytes: int) -> None:
    """Ask for addresses, most of which will only be mapped (code), and for memory; and release both."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return  # Windows
    taken = []
    try:
        for size, protection in ((mapped_bytes, 0), (written_bytes, mmap.PROT_WRITE)):
            if size:
                protection |= mmap.PROT_READ
                taken.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=protection))
    except (OSError, MemoryError):
        raise MemoryError(f"{what} takes up to {(mapped_bytes + written_bytes) // MIB} MiB") from None
    finally:
        for piece in taken:
            piece.close()


@contextmanager
def one_thread_of_blas() -> Iterator[None]:
    """Let numpy's products use the calling thread only, and afterwards as many as before; where OpenBLAS makes them.

    It is a setting of the whole process.
    """
    found = _openblas()
    if found is None:
        yield
        return
    get, use = found
    before = get()
    use(1)
    try:
        yield
    finally:
        use(before)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Its functions that tell and set the number of threads; None where numpy has brought none."""
    import ctypes

    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "openblas" in line}
    except OSError:
        return None
    for path in sorted(paths):
        with suppress(OSError):
            library = ctypes.CDLL(path)
            for before, after in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                names = [f"{before}openblas_{what}_num_threads{after}" for what in ("get", "set")]
                if all(hasattr(library, name) for name in names):
                    return getattr(library, names[0]), getattr(library, names[1])
    return None
