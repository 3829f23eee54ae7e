"""DBRX: experts that lie in one matrix each way, with clamped queries, keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import BadInput
from ...kit import Reshaped, Transposed
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type, head_count
from ..rules import Rule
from ..tokenizers import BPE

#: class defaults of sections
_SECTIONS: dict[str, dict[str, int]] = {
    "attn_config": {"kv_n_heads": 1}, "ffn_config": {"ffn_hidden_size": 3584, "moe_num_experts": 4, "moe_top_k": 1},
}  # fmt: skip
_EXPERTS = "transformer.blocks.{bid}.ffn.experts.mlp"


def inner(c: Config, name: str) -> Config:
    """The section ``name``."""
    found = c.get(name) if c.get(name) is not None else {}
    if not isinstance(found, dict):
        raise BadInput(f"{c.place}: {name!r} is not an object")
    return replace(c, values={**_SECTIONS[name], **found})


def keys(m: Metadata, a: str, c: Config) -> None:
    """What the sections of attention and of experts say."""
    attention, network = inner(c, "attn_config"), inner(c, "ffn_config")
    m.u32(f"{a}.context_length", c.integer("max_seq_len"))
    m.u32(f"{a}.feed_forward_length", network.integer("ffn_hidden_size"))
    m.u32(f"{a}.attention.head_count_kv", attention.integer("kv_n_heads"))
    m.f32(f"{a}.rope.freq_base", attention.real("rope_theta"))
    m.f32(f"{a}.attention.clamp_kqv", attention.real("clip_qkv"))
    m.u32(f"{a}.expert_count", network.integer("moe_num_experts"))
    m.u32(f"{a}.expert_used_count", network.integer("moe_top_k"))
    m.f32(f"{a}.attention.layer_norm_epsilon", 1e-5)


def experts(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """A matrix for each expert."""
    network = inner(c, "ffn_config")
    return [
        Reshaped(rows[0], (network.integer("moe_num_experts"), network.integer("ffn_hidden_size"), rows[0].shape[-1]))
    ]


def transposed(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """The same of what is stored the other way round."""
    return [Transposed(experts(rows, c)[0])]


FAMILY = Family(
    arch="dbrx",
    architectures=("DbrxForCausalLM",),
    tokenizer=BPE,
    classes={"dbrx": {
        "d_model": 2048, "n_heads": 16, "n_layers": 24, "max_seq_len": 2048, "vocab_size": 32000, "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }},
    assumes={"resid_pdrop": Assumed((0.0, 0))},
    keys=(block_count, embedding_length, head_count, keys, file_type),
    types={"blk.*.ffn_gate_inp.weight": "as the file"},
    rules=tuple(
        Rule((f"blk.{{bid}}.ffn_{part}_exps.weight",), (f"{_EXPERTS}.{name}",), make)
        for part, name, make in (("gate", "w1", experts), ("up", "v1", experts), ("down", "w2", transposed))
    ),
)  # fmt: skip
