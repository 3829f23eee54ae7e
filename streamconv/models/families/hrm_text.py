"""HRM-Text: two stacks of layers, which are run in turns; none has a norm with weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...kit import split
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, head_count_kv, rope_dimension_count
from ..names import plain_name
from ..rules import Rule, halves, rename
from ..tokenizers import BPE
from ._stated import reals

_STACK = re.compile(r"model\.([LH])_module\.layers\.(\d+)\.(attn\.)?")


def per_stack(c: Config) -> int:
    """Layers of a stack; trainers call the number as others do that of all layers."""
    return c.integer("num_layers_per_stack") if c.get("num_layers_per_stack") else c.n_layers


def spelled(name: str, c: Config) -> str:
    """``name`` with the layers of the slow stack behind those of the fast one."""
    return _STACK.sub(
        lambda m: f"model.layers.{int(m[2]) + per_stack(c) * (m[1] == 'H')}.{'self_attn.' if m[3] else ''}",
        plain_name(name),
    )


def stacks(m: Metadata, a: str, c: Config) -> None:
    """As many blocks as are run, which are more than there are, and how often each stack is."""
    fast, slow = c.integer("L_cycles"), c.integer("H_cycles")
    m.u32(f"{a}.block_count", per_stack(c) * slow * (fast + 1))
    m.u32(f"{a}.hrm.layers_per_stack", per_stack(c))
    m.u32(f"{a}.hrm.h_cycles", slow)
    m.u32(f"{a}.hrm.l_cycles", fast)
    m.boolean(f"{a}.hrm.prefix_lm", bool(c.get("prefix_lm")))
    if c.raw_value("num_key_value_heads") is not None:
        head_count_kv(m, a, c)


def quarters(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Gate, queries, keys and values out of one matrix."""
    return split(rows[0], [rows[0].shape[0] // 4] * 4)


FAMILY = Family(
    arch="hrm_text",
    named_as="llama",
    architectures=("HrmTextForCausalLM",),
    tokenizer=BPE,
    classes={"hrm_text": class_defaults(
        151808, 2048, 1536, 4096, 16, 12, None, head_dim=128, H_cycles=2, L_cycles=3, prefix_lm=True,
        embedding_scale=lambda c: 1 / (c.real("initializer_range") if c.get("initializer_range") else 0.02),
    )},
    assumes={
        **GATED_SILU, "num_key_value_heads": Assumed(lambda _, c: (c.n_heads,)),
        "prefix_lm": Assumed((False,), "runtimes look only back, at the tokens of a prompt too"),
    },
    idle=("L_bp_cycles", "H_bp_cycles", "half_layers"),
    keys=(
        *(key for key in BASE if key is not head_count_kv), rope_dimension_count, reals({"embedding_scale": "embedding_scale"}),
        stacks,
    ),
    spelled=spelled,
    rules=(
        rename("model.z_L_init", "hrm.z_l_init"),
        Rule(tuple(f"blk.{{bid}}.attn_{part}.weight" for part in ("gate", "q", "k", "v")),
             ("model.layers.{bid}.self_attn.gqkv_proj.weight",), quarters),
        Rule(("blk.{bid}.ffn_gate.weight", "blk.{bid}.ffn_up.weight"), ("model.layers.{bid}.mlp.gate_up_proj.weight",), halves),
    ),
)  # fmt: skip
