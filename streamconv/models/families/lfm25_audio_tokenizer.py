"""What makes sound of the codes of LFM 2.5 Audio: LFM 2 with windows for attention and a matrix behind it, without words."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..config import Config
from . import lfm2
from ._stated import numbers


def no_words(m: Metadata, _a: str, _c: Config) -> None:
    """There is no vocabulary."""
    m.string("tokenizer.ggml.model", "none")


FAMILY = replace(
    lfm2.FAMILY,
    architectures=("Lfm25AudioTokenizer",),
    tokenizer=None,
    assumes={**lfm2.FAMILY.assumes, "layer_types": lfm2.kinds("sliding_attention")},
    keys=(
        *lfm2.FAMILY.keys, numbers({"attention.sliding_window": "sliding_window", "embedding_length_out": "output_size"}), no_words,
    ),
    names={**lfm2.FAMILY.names, "embedding_norm": "token_embd_norm", "lin": "dense_2"},
    drops={"istft.window": "computed by runtimes", "emb.emb*": "codes are looked up elsewhere"},
)  # fmt: skip
