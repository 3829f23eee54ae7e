"""Hunyuan 4: DeepSeek's latent attention with gates and sinks, between hyper-connections; an indexer that layers share."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, vocab_size
from ..names import plain_name
from ..rules import Rule, packed_experts
from ..tokenizers import BPE
from . import deepseek2
from ._mla import KV_B, latent, separate
from ._stated import fixed, numbers, reals
from .deepseek32 import INDEXER

_SPARSE = ("sparse_attention", "deepseek_sparse_attention")
_SELF = "model.layers.{bid}.self_attn"


def leading_dense(c: Config) -> int:
    """Layers before the first with experts; BadInput where there are others behind it, or two keys disagree."""
    kinds, stated = c.get("mlp_layer_types"), c.get("first_k_dense_replace")
    if not isinstance(kinds, list):
        return c.integer("first_k_dense_replace")
    first = len(list(takewhile(lambda kind: kind == "dense", kinds)))
    if "dense" in kinds[first:] or stated not in (None, first):
        raise BadInput(
            f"{c.place}: 'mlp_layer_types' is {kinds}, 'first_k_dense_replace' {stated}",
            "Runtimes know dense layers before all others only.",
        )
    return first


def owners(c: Config) -> list[bool] | None:
    """Which layers have an indexer of their own, None where there is none."""
    stated, kinds = c.get("indexer_types"), c.layer_types
    if stated is None:
        return [kind in _SPARSE for kind in kinds] if any(kind in _SPARSE for kind in kinds) else None
    if (
        not isinstance(stated, list)
        or len(stated) < c.n_layers
        or {*stated} - {"full", "shared"}
        or stated[0] != "full"
    ):
        raise BadInput(
            f"{c.place}: 'indexer_types' is {stated!r}, not 'full' or 'shared' for every layer, the first 'full'"
        )
    return [kind == "full" for kind in stated[: c.n_layers]]


def layers(m: Metadata, a: str, c: Config) -> None:
    """Layers without experts, bounds of experts, and which layers have an indexer."""
    m.u32(f"{a}.leading_dense_block_count", leading_dense(c))
    if c.get("swiglu_limit"):
        m.array(f"{a}.swiglu_clamp_exp", "FLOAT32", [c.real("swiglu_limit")] * c.n_layers)
    if (own := owners(c)) is not None:
        for key in ("index_n_heads", "index_head_dim", "index_topk"):
            c.integer(key)
        INDEXER(m, a, c)
        m.array(f"{a}.attention.indexer.types", "BOOL", own)


def one_group(m: Metadata, a: str, c: Config) -> None:
    """Without the keys of groups of experts where all are of one."""
    if c.get("n_group") == c.get("topk_group") == 1:
        for key in ("expert_group_count", "expert_group_used_count"):
            m.values.pop(f"{a}.{key}", None)


def spelled(name: str, _config: Config) -> str:
    """``name`` with the ending that parameters outside of layers lack."""
    name = plain_name(name)
    return f"{name}.weight" if ".hc_" in name or name.endswith(".learnable_sink_param") else name


def output_type(family: Family, c: Config) -> Family:
    """The output head is computed in float32 where config.json says so."""
    return replace(family, types={**family.types, "output.weight": "F32"}) if c.get("enable_lm_head_fp32") else family


FAMILY = replace(
    deepseek2.FAMILY,
    arch="hy_v4",
    named_as="glm-dsa",
    architectures=("HYV4ForCausalLM",),
    tokenizer=BPE,
    classes={"hy_v4": class_defaults(
        120832, 262144, 2816, 6912, 34, 32, None, rms_norm_eps=1e-5, kv_lora_rank=512, q_lora_rank=1536, qk_rope_head_dim=64,
        qk_nope_head_dim=192, v_head_dim=256, n_routed_experts=256, num_experts_per_tok=8, n_group=1, topk_group=1,
        n_shared_experts=1, moe_intermediate_size=768, norm_topk_prob=True, routed_scaling_factor=2.827, index_n_heads=16,
        index_head_dim=128, index_topk=2048, hc_mult=4, hc_magnitude=2.0, hc_eps=1e-6, swiglu_limit=10.0,
        mlp_layer_types=lambda c: ["dense" if n == 0 else "sparse" for n in range(c.n_layers)],
        indexer_types=lambda c: ["full" if n == 0 or n % 4 == 1 else "shared" for n in range(c.n_layers)],
    )},
    variant=output_type,
    assumes={
        **{key: value for key, value in deepseek2.ASSUMES.items() if key not in ("layer_types", "rope_interleave")},
        "scoring_func": Assumed(("sigmoid",)),
    },
    idle=(*deepseek2.IDLE, "layer_types", "learnable_sink_init", "enable_*"),
    keys=(
        *BASE, one_group, vocab_size, latent, deepseek2.mixture, layers, reals({
            "expert_weights_scale": "routed_scaling_factor", "hyper_connection.epsilon": "hc_eps",
            "hyper_connection.magnitude": "hc_magnitude",
        }), numbers({"hyper_connection.count": "hc_mult"}), fixed({"expert_gating_func": 2}),
    ),
    spelled=spelled,
    drops={"model.mtp_layers.*": "runtimes predict one token at a time with this architecture"},
    names={
        f"{_SELF}.linear_gate": "blk.{bid}.attn_gate", f"{_SELF}.learnable_sink_param": "blk.{bid}.attn_sinks",
        **{f"model.hc_head.hc_head_{part}": f"output_hc_{part}" for part in ("base", "fn", "scale")},
        **{f"model.layers.{{bid}}.hc_{kind}_layer.hc_pre.hc_{part}": f"blk.{{bid}}.hc_{name}_{part}"
           for kind, name in (("attn", "attn"), ("mlp", "ffn")) for part in ("base", "fn", "scale")},
    },
    rules=(
        Rule(KV_B.targets, KV_B.sources,
             lambda rows, c: separate(rows[0], c.n_heads, c.integer("qk_nope_head_dim"), c.integer("v_head_dim"))),
        *packed_experts("model.layers.{bid}.mlp.experts"),
    ),
    types={"*hc_*fn.weight": "F32"},
)  # fmt: skip
