"""streamconv: model checkpoints to what runtimes load, streamed, resumable, byte-identical with ggml.

>>> import streamconv
>>> [name for name in dir(streamconv) if not name.startswith("_")]  # doctest: +NORMALIZE_WHITESPACE
['StreamconvError', 'convert', 'dequantize', 'edit', 'errors', 'hash', 'join', 'logits', 'mix', 'open', 'pack', 'plan', 'quantize',
 'split', 'unpack']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from .errors import StreamconvError

if TYPE_CHECKING:
    from .api import convert, logits, mix, open, plan
    from .packing.api import pack, unpack
    from .quant.api import dequantize, quantize
    from .toolbox.api import edit, hash, join, split

__all__ = [
    "StreamconvError",
    "convert",
    "dequantize",
    "edit",
    "errors",
    "hash",
    "join",
    "logits",
    "mix",
    "open",
    "pack",
    "plan",
    "quantize",
    "split",
    "unpack",
]

_HOMES = {
    "convert": ".api",
    "logits": ".api",
    "mix": ".api",
    "open": ".api",
    "plan": ".api",
    "quantize": ".quant.api",
    "dequantize": ".quant.api",
    "pack": ".packing.api",
    "unpack": ".packing.api",
    "edit": ".toolbox.api",
    "hash": ".toolbox.api",
    "join": ".toolbox.api",
    "split": ".toolbox.api",
}


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used, so that ``import streamconv`` costs nothing."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not, and nothing that is here only to load them."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
