"""DFlash and DSpark: layers of Qwen 3 that draft a block of tokens at once for another model, whose layers they listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...kit import Order, take
from ...metadata import Metadata
from ...rows import Rows
from ...sources.hf_config import section as part
from ...sources.hf_config import text_section
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..names import plain_name
from . import qwen3
from ._draft import OWN_TOKENS, listens_to, with_layer_config

_DSPARK = ("Qwen3DSparkModel", "DSparkDraftModel", "DSparkSpeculator", "Lfm2DSparkDraftModel", "LingDSparkModel")
#: GGUF key -> key of config.json
_NUMBERS = {
    "conv_kernel_size": "conv_kernel_size", "conv_group_size": "conv_group_size", "selector_rank": "selector_rank",
    "selector_top_k": "selector_top_k",
}  # fmt: skip
_SCALES = {"logit_scale": "output_multiplier", "embedding_scale": "input_embedding_scale"}
NAMES = {
    "model.fc": "fc", "model.hidden_norm": "enc.output_norm", "model.lm_head": "output",
    "model.layers.{bid}.self_attn.sinks": "blk.{bid}.attn_sinks",
    "model.markov_head.markov_w1": "markov_w1", "model.markov_head.markov_w2": "markov_w2",
    "model.confidence_head.proj": "conf_proj",
    **{f"model.layers.{{bid}}.{module}_conv.{name}": f"blk.{{bid}}.{target}_conv_{kind}"
       for module, target in (("attention", "attn"), ("mlp", "ffn"))
       for name, kind in (("base_kernel", "base"), ("kernel_projection", "proj"))},
    "model.candidate_selector.predecessor_codebook": "selector_predecessor",
    "model.candidate_selector.successor_codebook": "selector_successor",
    "model.candidate_selector.hidden_projection": "selector_hidden",
}  # fmt: skip


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json with what DSpark says in the root where DFlash has it."""
    found = with_layer_config(raw)
    if str((raw.get("architectures") or [""])[0]) not in _DSPARK or "dflash_config" in found:
        return found
    if (layers := found.get("aux_hidden_state_layer_ids")) is not None:
        listened = {"target_layer_ids": [n - 1 for n in layers]}
    else:
        listened = {"target_layer_ids": found["target_layer_ids"]} if "target_layer_ids" in found else {}
    return {**found, "dflash_config": {**listened, "mask_token_id": found.get("mask_token_id")}}


def told(c: Config) -> Config:
    """The configuration with the section on drafting over the root."""
    return replace(
        c, values={**c.values, **{k: v for k, v in part(c.values, "dflash_config").items() if v is not None}}
    )


def mask(m: Metadata, _a: str, c: Config) -> None:
    """What stands for tokens that are to be drafted."""
    own = replace(c, values=part(c.values, "dflash_config"))
    if own.get("mask_token_id") is not None:
        m.u32("tokenizer.ggml.mask_token_id", own.integer("mask_token_id"))


def keys(m: Metadata, a: str, c: Config) -> None:
    """How many tokens are drafted at once, from which layers, and how."""
    own, both = replace(c, values=part(c.values, "dflash_config")), told(c)
    if c.rope.get("partial_rotary_factor") is not None:
        m.u32(f"{a}.rope.dimension_count", int(c.head_dim * c.rope["partial_rotary_factor"]))
    if own.get("attention_value_scale") is not None:
        m.f32(f"{a}.attention.value_scale", own.real("attention_value_scale"))
    m.u32(f"{a}.block_size", 16 if both.get("block_size") is None else both.integer("block_size"))
    if own.get("conv_kernel_size") is not None:
        for key, name in _NUMBERS.items():
            m.u32(f"{a}.{key}", own.integer(name))
    for key, name in _SCALES.items():
        if both.get(name) is not None:
            m.f32(f"{a}.{key}", both.real(name))
    if both.get("final_logit_softcapping"):
        m.f32(f"{a}.final_logit_softcapping", both.real("final_logit_softcapping"))
    if layers := both.get("target_layer_ids"):
        listens_to(m, a, [n + 1 for n in layers], c)
    looks_back = own.get("causal") if c.get("is_causal") is None else c.get("is_causal")
    if looks_back is not None:
        m.boolean(f"{a}.attention.causal", bool(looks_back))
    if "mrope_section" in (part(of := text_section(c.target.config), "rope_parameters") or part(of, "rope_scaling")):
        m.array(f"{a}.rope.dimension_sections", "INT32", [c.head_dim // 2, 0, 0, 0])


def windows(m: Metadata, a: str, c: Config) -> None:
    """The window, and which layers have it."""
    own = replace(c, values=part(c.values, "dflash_config"))
    everywhere, kinds = bool(own.get("use_swa")), c.get("layer_types") or []
    # transformers' class forgets the width of a window that is not used
    width = c.get("sliding_window") if c.get("use_sliding_window") or not c.defaults else None
    width = own.get("swa_window_size") or width
    if width and (everywhere or c.get("use_sliding_window")):
        m.u32(f"{a}.attention.sliding_window", replace(c, values={"sliding_window": width}).integer("sliding_window"))
        pattern = [everywhere or kind == "sliding_attention" for kind in ([""] * c.n_layers if everywhere else kinds)]
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", pattern)


def spark(m: Metadata, a: str, c: Config) -> None:
    """Where drafting begins, and whether it says how sure it is."""
    anchored = "transformer_layer_config" not in c.raw and "aux_hidden_state_layer_ids" not in c.values
    stated = c.get("sample_from_anchor")
    m.boolean(f"{a}.sample_from_anchor", anchored if stated is None else bool(stated))
    names = c.checkpoint.tensors if c.checkpoint is not None else ()
    m.boolean(f"{a}.has_confidence_head", any("confidence_head.proj" in name for name in names))


def spelled(name: str, c: Config) -> str:
    """``name`` as that of a part of ``model``."""
    name = plain_name(name)
    if name in ("d2t", "t2d"):
        return name
    name = name if name.startswith("model.") else f"model.{name}"
    return name if name.endswith(".weight") or not ("sink" in name or name.endswith("codebook")) else f"{name}.weight"


def by_parity(rows: Rows, c: Config) -> Rows:
    """In each head the dimensions of even number first, where pairs lie side by side."""
    if c.get("rope_is_neox_style") is not False:
        return rows
    n, width = rows.shape[0], c.head_dim
    if n % width:
        raise ValueError(f"{n} rows are not heads of {width}")
    return take(rows, Order((n // width, 2, width // 2), (width, 1, 2)))


def meant(family: Family, c: Config) -> Family:
    """DSpark, which has a vocabulary of its own, or the head of the model it helps."""
    if c.get("has_embed_tokens") is False:
        family = replace(family, drops={**family.drops, "model.embed_tokens.*": "config.json says that there is none"})
    if str((c.raw.get("architectures") or [""])[0]) not in _DSPARK:
        return family
    n_own = c.integer("draft_vocab_size") if c.get("draft_vocab_size") else c.integer("vocab_size")
    if n_own > c.integer("vocab_size"):
        raise BadInput(f"{c.place}: 'draft_vocab_size' {n_own} is more than 'vocab_size' {c.integer('vocab_size')}")
    names = c.checkpoint.tensors if c.checkpoint is not None else {}
    if n_own < c.integer("vocab_size"):
        if names and "d2t" not in map(plain_name, names):
            raise BadInput(f"{c.place}: 'draft_vocab_size' is {n_own}, but the checkpoint has no tensor 'd2t'")
        return replace(family, keys=(*family.keys, spark))
    head = {"model.lm_head.*": "the head of the model that it helps is used"}
    return replace(family, keys=(*family.keys, spark), drops={**family.drops, **head})


FAMILY = Family(
    arch="dflash",
    named_as="qwen3",
    architectures=("DFlashDraftModel", "DFlash2DraftModel", *_DSPARK),
    tokenizer=qwen3.FAMILY.tokenizer,
    target="family",
    section=section,
    classes={"qwen3": {**qwen3.FAMILY.classes["qwen3"], "sliding_window": 4096}},
    variant=meant,
    assumes={
        **{key: GATED_SILU[key] for key in ("hidden_act", "rope_type", "truncate")}, "markov_head_type": Assumed(("vanilla",)),
        "attention_bias": Assumed((False,)),
    },
    idle=(
        "num_target_layers", "layer_types", "markov_rank", "dflash_config", "target_layer_ids", "mask_token_id", "*_id", "block_size",
        "sliding_window", "speculators_*", "transformer_layer_config", "aux_hidden_state_layer_ids", "is_causal", "*confidence*",
        "vocab_size", "draft_vocab_size", "partial_rotary_factor",
    ),
    keys=(*BASE, keys, windows),
    token_keys=(mask,),
    spelled=spelled,
    drops={"t2d": "runtimes look tokens up the other way"},
    names=NAMES,
    rules=(OWN_TOKENS,),
    transforms={f"attn_{x}": by_parity for x in ("q", "k", "q_norm", "k_norm")},
    types={"d2t": "I64"},
)  # fmt: skip
