"""DSpark for Gemma 4: its layers that look at the whole context, whose keys serve as values, draft a block of tokens at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GELU_TANH, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv, key_value_length, rope_freq_base_swa, rope_scaling
from ..rules import rename
from . import dflash, dspark, gemma4

_LAYER, _BLOCK = "model.layers.{bid}", "blk.{bid}"
_ELSEWHERE = head_count_kv, key_value_length, rope_freq_base_swa, rope_scaling
_ROPE = gemma4.FAMILY.classes["gemma4_text"]["rope_parameters"]["full_attention"]
_VANILLA = Assumed(("vanilla",))


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json with what its root says of drafting in the section on it, where that does not."""
    found = dspark.section(raw)
    own = {key: found[key] for key in ("target_layer_ids", "mask_token_id", "markov_head_type") if key in found}
    rope = found.get("rope_parameters") or {"full_attention": _ROPE}
    return {**found, "dflash_config": {**own, **found["dflash_config"]}, "rope_parameters": rope}


def heads(m: Metadata, a: str, c: Config) -> None:
    """Heads of one width, all of whose dimensions count as rotated; what scales embeddings and attention; the activation."""
    m.u32(f"{a}.attention.head_count_kv", c.integer("num_global_key_value_heads"))
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        m.u32(f"{a}.{key}", c.integer("global_head_dim"))
    m.f32(f"{a}.embedding_scale", c.hidden**0.5)
    m.f32(f"{a}.attention.scale", 1.0)
    m.string(f"{a}.hidden_activation", "gelu_pytorch_tanh")


def confidence(m: Metadata, a: str, c: Config) -> None:
    """Where drafting begins, and whether it says how sure it is."""
    stated = c.get("sample_from_anchor")
    m.boolean(f"{a}.sample_from_anchor", stated is None or bool(stated))
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    m.boolean(f"{a}.has_confidence_head", any("confidence_" in name for name in names))


def spelled(name: str, c: Config) -> str:
    """``name`` as DSpark's."""
    return dflash.spelled(name, c).replace("model.confidence_proj.", "model.confidence_head.proj.")


def meant(family: Family, c: Config) -> Family:
    """With what it cannot do without.

    Errors: BadInput where a token for what is to be drafted, layers to listen to or an output head are missing
    """
    own = dflash.drafting(c)
    for key in ("mask_token_id", "target_layer_ids"):
        if own.get(key) in (None, []):
            raise BadInput(f"{c.place}: {key!r} is missing, without which no runtime drafts")
    names = c.checkpoint.tensors if c.checkpoint is not None else {}
    if names and not c.get("tie_word_embeddings") and not any(name.endswith("lm_head.weight") for name in names):
        raise BadInput(f"{c.folder}: there is no 'lm_head.weight', and config.json does not tie it to the embedding")
    if own.get("markov_head_type", "vanilla") != "vanilla":
        raise BadInput(f"{c.place}: 'markov_head_type' is {own.get('markov_head_type')!r}, runtimes know 'vanilla'")
    return dflash.meant(family, c)


FAMILY = replace(
    dflash.FAMILY,
    architectures=("Gemma4DSparkModel",),
    classes={},
    section=section,
    variant=meant,
    assumes={
        "attention_k_eq_v": Assumed((True,), null=True), "attention_bias": Assumed((False,)), "markov_head_type": _VANILLA,
        "layer_types": Assumed(lambda _, c: (["full_attention"] * c.n_layers,), null=True),
        "hidden_activation": GELU_TANH["hidden_activation"], "enable_moe_block": Assumed((False,)),
        "draft_vocab_size": Assumed(lambda _, c: (0, c.integer("vocab_size"))), "rope_type": Assumed(("default", "proportional")),
        "final_logit_softcapping": Assumed((0,)), "dflash_config": dflash.FAMILY.assumes["dflash_config"],
    },
    idle=(*dspark.FAMILY.idle, "head_dim", "num_key_value_heads", "*per_layer*", "num_kv_shared_layers", "use_double_wide_mlp"),
    keys=(*(key for key in BASE if key not in _ELSEWHERE), *dflash.FAMILY.keys[len(BASE):], heads, confidence),
    spelled=spelled,
    names={
        **dspark.FAMILY.names, f"{_LAYER}.post_attention_layernorm": f"{_BLOCK}.post_attention_norm",
        f"{_LAYER}.pre_feedforward_layernorm": f"{_BLOCK}.ffn_norm",
        f"{_LAYER}.post_feedforward_layernorm": f"{_BLOCK}.post_ffw_norm",
    },
    rules=(
        gemma4.FREQUENCIES._replace(when=lambda c, _: c.rope.get("rope_type") == "proportional"),
        rename(f"{_LAYER}.layer_scalar", f"{_BLOCK}.layer_output_scale.weight"),
    ),
)  # fmt: skip
