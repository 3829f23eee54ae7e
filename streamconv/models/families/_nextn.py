"""Blocks behind the last that predict further tokens: left out, or kept and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..names import plain_name

_BLOCK = re.compile(r"model\.layers\.(\d+)\.")
#: what such blocks have besides: name in a block -> GGUF name
NEXTN_NAMES = {f"model.layers.{{bid}}.{name}": f"blk.{{bid}}.nextn.{target}" for name, target in (
    ("eh_proj", "eh_proj"), ("embed_tokens", "embed_tokens"), ("enorm", "enorm"), ("hnorm", "hnorm"),
    ("shared_head.head", "shared_head_head"), ("shared_head.norm", "shared_head_norm"),
)}  # fmt: skip
#: to go with ``trunk`` and ``untied``
LEFT_OUT = {
    "nextn.*": "runtimes predict one token at a time with this architecture", "tied.*": "config.json ties it to the embedding",
}  # fmt: skip


def further(c: Config) -> range:
    """Numbers of those that there are: as many as config.json counts, where the checkpoint has them."""
    n, stated = c.n_layers, c.integer("num_nextn_predict_layers") if c.get("num_nextn_predict_layers") else 0
    names = c.checkpoint.tensors if c.checkpoint is not None else {}
    blocks = (f"layers.{block}." for block in range(n, n + stated))
    if names:
        stated = sum(any(b in name and plain_name(name).startswith(f"model.{b}") for name in names) for b in blocks)
    return range(n, n + stated)


def n_further(c: Config) -> int:
    """How many are written."""
    return 0 if c.further == "left out" else len(further(c))


def counted(m: Metadata, a: str, c: Config) -> None:
    """All blocks, and which of them predict further tokens; without a key where there are none."""
    m.u32(f"{a}.block_count", c.n_layers + n_further(c))
    if n_further(c):
        m.u32(f"{a}.nextn_predict_layers", n_further(c))


def stated(m: Metadata, a: str, c: Config) -> None:
    """The same, with a key wherever the configuration has one."""
    counted(m, a, c)
    if c.get("num_nextn_predict_layers") is not None and c.further != "left out":
        m.u32(f"{a}.nextn_predict_layers", n_further(c))


#: what runtimes take the number of such blocks to be
COUNTED: Mapping[str, Assumed] = {
    "num_nextn_predict_layers": Assumed(
        lambda _, c: (len(further(c)),), "of such blocks the output has those that the checkpoint has"
    ),
}


def untied(name: str, c: Config) -> str:
    """``name`` plain, that of an output head marked where the configuration says that it is the embedding."""
    name = plain_name(name)
    return f"tied.{name}" if name == "lm_head.weight" and c.get("tie_word_embeddings") else name


def trunk(name: str, c: Config) -> str:
    """``name`` as ``untied`` spells it, marked where it is of a block behind the last."""
    name = untied(name, c)
    block = _BLOCK.match(name)
    return f"nextn.{name}" if block and int(block[1]) >= c.n_layers else name
