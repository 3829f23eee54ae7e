"""Tools for GGUF files that need no model: split and join, other keys, digests.

What writes a new file is an ordinary job of the engine whose items are copies of stored tensors; see ``copies``.
"""

from __future__ import annotations

from .changes import Changes
from .editing import Edit, carry_out_in_place, prepare_edit, settle
from .hashing import ALGORITHMS, IN_MANIFESTS, Hashed, chosen, hash_file, read_manifest, verdict
from .splitting import prepare_join, prepare_split

__all__ = [
    "ALGORITHMS",
    "IN_MANIFESTS",
    "Changes",
    "Edit",
    "Hashed",
    "carry_out_in_place",
    "chosen",
    "hash_file",
    "prepare_edit",
    "prepare_join",
    "prepare_split",
    "read_manifest",
    "settle",
    "verdict",
]
