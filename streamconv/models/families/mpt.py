"""MPT: distances as biases of attention, or learned positions; fused queries, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, head_count
from ..rules import rename
from ..tokenizers import TokenizerRule
from ._gpt import quadruple


def _of_attention(c: Config, key: str, default: Any = None) -> Any:
    section = c.get("attn_config")
    value = section.get(key) if isinstance(section, Mapping) else None
    return default if value is None else value


def attention(m: Metadata, a: str, c: Config) -> None:
    """The context, heads, bounds and the strength of distances."""
    m.u32(f"{a}.context_length", c.integer("max_seq_len"))
    m.f32(f"{a}.attention.layer_norm_epsilon", 1e-5)
    given = {key: _of_attention(c, key) for key in ("kv_n_heads", "clip_qkv", "alibi_bias_max")}
    if not all(value is None or isinstance(value, (int, float)) for value in given.values()):
        raise BadInput(f"config.json: 'attn_config' has {given}, which are not all numbers")
    if given["kv_n_heads"] is not None:
        m.u32(f"{a}.attention.head_count_kv", int(given["kv_n_heads"]))
    if given["clip_qkv"] is not None:
        m.f32(f"{a}.attention.clamp_kqv", float(given["clip_qkv"]))
    strength = given["alibi_bias_max"]
    has_distances = _of_attention(c, "alibi", True)
    m.f32(f"{a}.attention.max_alibi_bias", float(8 if strength is None else strength) if has_distances else 0.0)


def fixed_ids(m: Metadata, a: str, c: Config) -> None:
    """Ids of a vocabulary of pieces, which is SEA-LION's."""
    if m.get("tokenizer.ggml.model") == "llama":
        m.boolean("tokenizer.ggml.add_bos_token", False)
        for kind, index in (("padding", 3), ("eos", 1), ("unknown", 0)):
            m.u32(f"tokenizer.ggml.{kind}_token_id", index)


FAMILY = Family(
    arch="mpt",
    architectures=("MPTForCausalLM",),
    tokenizer=TokenizerRule(("bpe", "spm")),
    classes={"mpt": {
        "vocab_size": 50368, "d_model": 2048, "n_heads": 16, "n_layers": 24, "max_seq_len": 2048, "expansion_ratio": 4,
        "tie_word_embeddings": True,
    }},
    assumes={"expansion_ratio": Assumed((4,)), "logit_scale": Assumed(()), "embedding_fraction": Assumed((1.0,))},
    idle=(
        "learned_pos_emb", "no_bias", "norm_type", "verbose", "*_config", "attn_impl", "softmax_scale", "tokenizer_name",
        "layer_norm_epsilon",
    ),
    keys=(attention, embedding_length, block_count, quadruple, head_count),
    token_keys=(fixed_ids,),
    rules=(rename("transformer.blocks.{bid}.ffn.act.scales", "blk.{bid}.ffn.act.scales"),),
)  # fmt: skip
