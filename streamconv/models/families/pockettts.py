"""Pocket TTS: a decoder without an output, whose learned vectors for beginnings are tokens behind those of its vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import BadInput
from ...kit import Constant, Reshaped, join, split
from ...rows import Rows, matrix_shape
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv
from ..rules import Rule
from ..tokenizers import TokenizerRule
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.spm import read_t5
from ..tokenizers.vocabulary import TokenType, Vocabulary

_LAYER, _BEFORE = "flow_lm.transformer.layers.{bid}", "flow_lm.bos_before_voice"
_SOUND = "what hears and makes sound is in a file of its own"


def read_vocabulary(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, _pre: str | None) -> Vocabulary:
    """Unigram pieces, and names for what is behind them.

    Raises
    ------
    BadInput : the file is damaged, or not Unigram
    """
    found = read_t5(files, config, size)
    if found.model != "t5":
        raise BadInput(f"{found.source} is not a Unigram model", "Fetch tokenizer.model of the same model again.")
    names = ["<|pad|>", *(["<|bos_before_voice|>"] if config.get("starts_voices") else []), "<|audio_bos|>"]
    for index, text in enumerate(names, max(0, len(found) - len(names))):
        found.put(index, text, TokenType.CONTROL, -1000.0)
    for kind in ("bos", "eos"):
        found.more.boolean(f"tokenizer.ggml.add_{kind}_token", False)
    return found


def table(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """The embedding, the vector before a voice where there is one, and that before sound in the space of the embedding."""
    embedding, *before, start, linear = rows
    values = linear.read(0, linear.shape[0]).astype(np.float64) @ start.read(0, 1).ravel().astype(np.float64)
    rounded = values.astype(np.float16) if embedding.dtype == "F16" else values
    sound = Constant(rounded.astype(np.float32).reshape(1, -1))
    return [join([embedding, *(Reshaped(each, matrix_shape(each.shape)) for each in before), sound])]


def thirds(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Queries, keys and values."""
    return split(rows[0], [rows[0].shape[0] // 3] * 3)


def with_voices(family: Family, c: Config) -> Family:
    """With the vector before a voice, where there is one."""
    before = (_BEFORE,) if c.checkpoint is not None and _BEFORE in c.checkpoint.tensors else ()
    parts = ("flow_lm.conditioner.embed.weight", *before, "flow_lm.bos_emb", "flow_lm.input_linear.weight")
    return replace(family, rules=(*family.rules, Rule(("token_embd.weight",), parts, table)))


FAMILY = Family(
    arch="pockettts",
    architectures=("PocketTTSModel",),
    tokenizer=TokenizerRule(("pieces",), own={"pieces": ("tokenizer.model", read_vocabulary)}),
    variant=with_voices,
    keys=tuple(key for key in BASE if key is not head_count_kv),
    why_not=lambda _: None,
    spelled=lambda name, _: name,
    drops=dict.fromkeys(("mimi.*", "flow_lm.flow_net.*", "flow_lm.out_eos.*", "flow_lm.emb_*", "flow_lm.speaker_proj*"), _SOUND),
    names={
        "flow_lm.out_norm": "output_norm",
        **{f"{_LAYER}.{name}": f"blk.{{bid}}.{target}" for name, target in (
            ("norm1", "attn_norm"), ("norm2", "ffn_norm"), ("self_attn.out_proj", "attn_output"), ("linear1", "ffn_up"),
            ("linear2", "ffn_down"),
        )},
    },
    rules=(Rule(
        tuple(f"blk.{{bid}}.attn_{part}.weight" for part in "qkv"), (f"{_LAYER}.self_attn.in_proj.weight",), thirds,
    ),),
)  # fmt: skip
