"""DFlash: layers of Qwen 3 that draft a block of tokens at once for another model, from what some layers of that computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources.hf_config import section, text_section
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE
from ..names import plain_name
from . import qwen3
from ._draft import OWN_TOKENS, by_parity, listens_to

#: keys of the section on drafting that come together
_CONVOLUTIONS = ("conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k")
_SCALES = {"logit_scale": "output_multiplier", "embedding_scale": "input_embedding_scale"}
_KNOWN = {
    *_CONVOLUTIONS, *_SCALES.values(), "attention_value_scale", "block_size", "causal", "final_logit_softcapping", "mask_token_id",
    "swa_window_size", "target_layer_ids", "use_swa", "markov_head_type",
}  # fmt: skip
_LAYER = "model.layers.{bid}"


def drafting(c: Config) -> Config:
    """What the section on drafting says."""
    return replace(c, values=section(c.values, "dflash_config"))


def keys(m: Metadata, a: str, c: Config) -> None:
    """How many tokens are drafted at once, from which layers, and how."""
    own = drafting(c)
    both = replace(c, values={**c.values, **{k: v for k, v in own.values.items() if v is not None}})
    if c.rope.get("partial_rotary_factor") is not None:
        m.u32(f"{a}.rope.dimension_count", int(c.head_dim * c.rope["partial_rotary_factor"]))
    if own.get("attention_value_scale") is not None:
        m.f32(f"{a}.attention.value_scale", own.real("attention_value_scale"))
    m.u32(f"{a}.block_size", 16 if both.get("block_size") is None else both.integer("block_size"))
    for name in _CONVOLUTIONS if "conv_kernel_size" in own.values else ():
        m.u32(f"{a}.{name}", own.integer(name))
    for key, name in _SCALES.items():
        if both.get(name) is not None:
            m.f32(f"{a}.{key}", both.real(name))
    if both.get("final_logit_softcapping") is not None and both.real("final_logit_softcapping") > 0:
        m.f32(f"{a}.final_logit_softcapping", both.real("final_logit_softcapping"))
    if both.get("target_layer_ids"):
        listens_to(m, a, c, both.get("target_layer_ids"))
    looks_back = own.get("causal") if c.get("is_causal") is None else c.get("is_causal")
    if looks_back is not None:
        m.boolean(f"{a}.attention.causal", bool(looks_back))
    helped = text_section(c.target.config)
    if "mrope_section" in (section(helped, "rope_parameters") or section(helped, "rope_scaling")):
        m.array(f"{a}.rope.dimension_sections", "INT32", [c.head_dim // 2, 0, 0, 0])


def windows(m: Metadata, a: str, c: Config) -> None:
    """The window, and which layers have it."""
    own, used, kinds = drafting(c), bool(c.get("use_sliding_window")), c.get("layer_types")
    everywhere = bool(own.get("use_swa"))
    if kinds is None and c.defaults and used:  # as transformers' class has it
        first = c.integer("max_window_layers")
        kinds = ["sliding_attention" if n >= first else "" for n in range(c.n_layers)]
    # that class forgets the width of a window that is not used
    width = own.get("swa_window_size") or (c.get("sliding_window") if used or not c.defaults else None)
    if width and (everywhere or used):
        m.u32(f"{a}.attention.sliding_window", replace(c, values={"width": width}).integer("width"))
        pattern = [True] * c.n_layers if everywhere else [kind == "sliding_attention" for kind in kinds or []]
        m.array(f"{a}.attention.sliding_window_pattern", "BOOL", pattern)


def mask(m: Metadata, _a: str, c: Config) -> None:
    """What stands for tokens that are to be drafted."""
    if drafting(c).get("mask_token_id") is not None:
        m.u32("tokenizer.ggml.mask_token_id", drafting(c).integer("mask_token_id"))


def spelled(name: str, _config: Config) -> str:
    """``name`` as that of a part of ``model``; ``d2t`` and ``t2d`` as they are."""
    name = plain_name(name)
    if name in ("d2t", "t2d"):
        return name
    name = name if name.startswith("model.") else f"model.{name}"
    return f"{name}.weight" if name.endswith("codebook") or ("sink" in name and not name.endswith(".weight")) else name


def meant(family: Family, c: Config) -> Family:
    """Without an embedding where config.json says so.

    Errors: BadInput where a row of the embedding is to be put in
    """
    if c.checkpoint is not None and (c.checkpoint.folder / "mask_embedding.pt").exists():
        raise BadInput(
            f"{c.folder}/mask_embedding.pt has another row for the embedding of the model that it helps, which cannot be put in"
        )
    unused = (
        {"model.embed_tokens.*": "config.json says that there is none"} if c.get("has_embed_tokens") is False else {}
    )
    return replace(family, drops={**family.drops, **unused})


def _known(stated: Any, _config: Config) -> tuple[Any, ...]:
    return (stated,) if isinstance(stated, Mapping) and set(stated) <= _KNOWN else ()


FAMILY = Family(
    arch="dflash",
    named_as="qwen3",
    architectures=("DFlashDraftModel", "DFlash2DraftModel"),
    tokenizer=qwen3.FAMILY.tokenizer,
    target="family",
    classes={"qwen3": {**qwen3.FAMILY.classes["qwen3"], "sliding_window": 4096, "max_window_layers": 28}},
    variant=meant,
    assumes={
        **{key: GATED_SILU[key] for key in ("hidden_act", "rope_type", "truncate")},
        "dflash_config": Assumed(_known, "some of its keys are not known to runtimes"),
    },
    idle=(
        "num_target_layers", "block_size", "sliding_window", "target_layer_ids", *_SCALES.values(), "final_logit_softcapping",
        "attention_bias", "layer_types",
    ),
    keys=(*BASE, keys, windows),
    token_keys=(mask,),
    spelled=spelled,
    drops={"t2d": "runtimes look tokens up the other way"},
    names={
        "model.fc": "fc", "model.hidden_norm": "enc.output_norm", "model.lm_head": "output",
        f"{_LAYER}.self_attn.sinks": "blk.{bid}.attn_sinks",
        **{f"{_LAYER}.{module}_conv.{name}": f"blk.{{bid}}.{target}_conv_{kind}"
           for module, target in (("attention", "attn"), ("mlp", "ffn"))
           for name, kind in (("base_kernel", "base"), ("kernel_projection", "proj"))},
        **{f"model.candidate_selector.{name}": f"selector_{target}" for name, target in (
            ("predecessor_codebook", "predecessor"), ("successor_codebook", "successor"), ("hidden_projection", "hidden"))},
    },
    rules=(OWN_TOKENS,),
    transforms={f"attn_{part}": by_parity for part in ("q", "k", "q_norm", "k_norm")},
    types={"d2t": "I64"},
)  # fmt: skip
