"""How numba keeps the compiled kernels: one file a kernel and signature, in the folder of ``cache``.

numba's own cache has an index and data files that it trusts whatever they contain, compares a kernel with the one file it
stands in though helpers of other files disappear into it, and is told by the environment where to look, which is every other
user's of numba in the process, too.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime.nrt import rtsys
from numba.core.serialize import dumps

from . import cache
from .cache_stamp import stamp

_rebuild: Any = CompileResult._rebuild
_dumps: Any = dumps


class DiskCache(NullCache):
    """The compiled forms of one function; takes the place of a dispatcher's ``_cache``.

    Parameters
    ----------
    function : the plain Python function
    variant : what tells it from the same function compiled otherwise
    """

    def __init__(self, function: Callable[..., Any], variant: object = None) -> None:
        self._function = function
        self._variant = variant
        self._source = Path(function.__code__.co_filename)

    @property
    def cache_path(self) -> str | None:
        """The folder, for numba's statistics."""
        where = cache.folder()
        return None if where is None else str(where)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compile result for signature ``sig``, None where it must be compiled."""
        # Of a refresh this is all that code needs which is compiled already; before it compiles, numba refreshes by itself.
        rtsys.initialize(target_context)
        kept = cache.load(*self._name(sig, target_context.codegen()))
        return None if kept is None else _rebuild(target_context, *pickle.loads(kept))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compile result ``data``, unless it refers to addresses of this process."""
        if not data.library.has_dynamic_globals and all(lifted.can_cache for lifted in data.lifted):
            cache.save(*self._name(sig, data.codegen), _dumps(data._reduce()))

    def _name(self, sig: Any, codegen: Any) -> tuple[str, str]:
        """The file of a signature, and what its contents are made from besides."""
        code = self._function.__code__
        cells = _dumps(tuple(c.cell_contents for c in self._function.__closure__ or ()))
        facts = (str(self._source), self._function.__qualname__, hashlib.sha256(cells).hexdigest())
        name = cache.name_of(
            f"{self._source.stem}.{code.co_name}", *facts, self._variant, str(sig), codegen.magic_tuple()
        )
        body = hashlib.sha256(code.co_code).hexdigest()
        return name, repr((stamp(self._source), code.co_firstlineno, body, llvmlite.__version__))
