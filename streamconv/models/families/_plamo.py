"""Norms of PLaMo 2 and 3, which are stored as offsets from numbers of their own, and their vocabulary."""

from __future__ import annotations

import numpy as np

from ...kit import PLUS_ONE, Function, Mapped
from ...metadata import Metadata
from ...rows import Floats, Rows
from ..config import Config
from ..family import Transform
from ..tokenizers import TokenizerRule
from ..tokenizers.plamo2 import MODEL, read_plamo2

TOKENIZER = TokenizerRule(("rows",), own={"rows": (MODEL, read_plamo2)})


def plus(number: float) -> Function:
    """Each number plus ``number``, as float32."""
    by = np.float32(number)

    def call(x: Floats) -> Floats:
        x += by
        return x

    return Function(f"plus {float(by)!r}", 1, call)


def offset(number: float) -> Transform:
    """What makes a norm of its offset."""
    return lambda rows, _config: Mapped(rows, plus(number))


def one(rows: Rows, _config: Config) -> Rows:
    """A norm as an offset from one."""
    return Mapped(rows, PLUS_ONE)


def ids(m: Metadata, _a: str, c: Config) -> None:
    """Special tokens by the texts that tokenizer_config.json has."""
    side = c.side("tokenizer_config.json") or {}
    wanted = {side.get(f"{kind}_token"): key for kind, key in (
        ("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("sep", "seperator"), ("unk", "unknown"))}  # fmt: skip
    for n, text in enumerate(m.get("tokenizer.ggml.tokens", ())):
        if text in wanted:
            m.u32(f"tokenizer.ggml.{wanted[text]}_token_id", n)


NORMS = {
    "attn_norm": one, "post_attention_norm": offset(1 / 5), "ffn_norm": one, "post_ffw_norm": offset(1 / 5**1.5),
    "output_norm": one,
}  # fmt: skip
