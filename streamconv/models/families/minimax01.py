"""MiniMax 01 and M1: lightning attention in seven of eight layers; residual streams are scaled."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..tokenizers import BPE
from ._stated import numbers, reals
from .minimax_m2 import EXPERTS

_ALPHA = "layernorm_full_attention_alpha"


def suppressed(m: Metadata, _a: str, c: Config) -> None:
    """Tokens behind those of the tokenizer whose row of the embedding is nothing but zeros."""
    rows = c.checkpoint.tensors.get("model.embed_tokens.weight") if c.checkpoint is not None else None
    types = m.get("tokenizer.ggml.token_type", ())
    if rows is None:
        return
    spare = [n for n, kind in enumerate(types) if kind != 1 and n < rows.shape[0]]
    empty = [n for n in spare if not rows.read(n, n + 1).any()]
    if empty:
        m.array("tokenizer.ggml.suppress_tokens", "INT32", empty)


def equal(_: object, c: Config) -> tuple[object, ...]:
    """The one factor of every residual stream."""
    return (c.get(_ALPHA),)


FAMILY = Family(
    arch="minimax-01",
    named_as="minimax-m2",
    architectures=("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
    tokenizer=replace(BPE, template="minimax-m1"),
    assumes={
        **GATED_SILU, **{f"layernorm_{kind}_alpha": Assumed(equal) for kind in ("linear_attention", "mlp")},
        **{f"layernorm_{kind}_beta": Assumed((1, 1.0)) for kind in ("full_attention", "linear_attention", "mlp")},
        "attn_type_list": Assumed(lambda _, c: ([int(n % 8 == 7) for n in range(c.n_layers)],)), "postnorm": Assumed((True,)),
        "shared_intermediate_size": Assumed((0,)), "sliding_window": Assumed(()),
    },
    idle=("shared_moe_mode",),
    keys=(*BASE, numbers({"rope.dimension_count": "rotary_dim"}), reals({"residual_scale": _ALPHA})),
    token_keys=(suppressed,),
    names={f"model.layers.{{bid}}.self_attn.{name}": f"blk.{{bid}}.{target}" for name, target in (
        ("qkv_proj", "attn_qkv"), ("norm", "attn_norm_2"), ("output_gate", "attn_gate"), ("out_proj", "attn_output"),
    )},
    rules=(EXPERTS,),
)  # fmt: skip
