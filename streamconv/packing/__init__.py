"""Packed checkpoints: shards as frames of Zstandard that every command reads in place, and back to the same bytes.

``packing`` plans and makes them, ``unpacking`` plans what undoes it; ``kept`` keeps so what comes from the hub.
The format and its reader are in ``sources/pack_format.py`` and ``sources/pack.py``.
"""

from .kept import Keeper, disk_bytes, kept_packed
from .making import execute_pack
from .packing import Packing, prepare_pack
from .unpacking import Unpacking, execute_unpack, prepare_unpack

__all__ = [
    "Keeper",
    "Packing",
    "Unpacking",
    "disk_bytes",
    "execute_pack",
    "execute_unpack",
    "kept_packed",
    "prepare_pack",
    "prepare_unpack",
]
