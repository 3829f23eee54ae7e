"""ERNIE 4.5: the Llama layout whose heads need no other order; Paddle's own files fuse what is multiplied with the same input."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import split
from ...rows import Rows
from ..assumed import GATED_SILU, Assumed
from ..config import Config, UnlessNull
from ..family import Family, class_defaults
from ..keys import BASE
from ..names import plain_name
from ..rules import Rule, halves
from ..tokenizers import SPM_PREFIXED

_BLOCK = "model.layers.{bid}"


def heads(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Queries, keys and values, one behind the other."""
    return split(rows[0], [n * c.head_dim for n in (c.n_heads, c.n_kv_heads, c.n_kv_heads)])


FAMILY = Family(
    arch="ernie4_5",
    architectures=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    tokenizer=SPM_PREFIXED,
    classes={"ernie4_5": class_defaults(
        103424, 131072, 1024, 3072, 18, 16, 2, head_dim=UnlessNull(128), rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "default", "rope_theta": 500000.0},
    )},
    assumes={**GATED_SILU, "use_bias": Assumed((False,))},
    idle=("compression_ratio", "weight_share_add_bias", "fuse_*", "use_rmsnorm", "max_sequence_length"),
    keys=BASE,
    spelled=lambda name, _: plain_name("model." + name.removeprefix("ernie.") if name.startswith("ernie.") else name),
    rules=(
        Rule(tuple(f"blk.{{bid}}.attn_{part}.weight" for part in "qkv"), (f"{_BLOCK}.self_attn.qkv_proj.weight",), heads),
        Rule(("blk.{bid}.ffn_gate.weight", "blk.{bid}.ffn_up.weight"), (f"{_BLOCK}.mlp.up_gate_proj.weight",), halves),
    ),
)  # fmt: skip
