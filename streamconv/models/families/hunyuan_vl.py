"""The text model of Hunyuan VL: positions with sections, stretched by a number that runtimes are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ...sources.hf_config import flattened
from ..assumed import Assumed
from ..config import Config
from ..keys import rope_scaling, rope_sections
from . import hunyuan_dense
from ._nextn import untied

#: what some checkpoints call keys
_ALIASES = {"attention_head_dim": "head_dim", "org_vocab_size": "vocab_size"}


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json in the words of transformers' class."""
    found = flattened(raw)
    named = {name: found[alias] for alias, name in _ALIASES.items() if alias in found and found.get(name) is None}
    return {**found, **named}


def sections(m: Metadata, a: str, c: Config) -> None:
    """Sections of positions and how they are stretched; without sections the positions are those of the dense model."""
    found = c.rope.get("xdrope_section") or c.rope.get("mrope_section")
    if found is None and c.rope.get("rope_type") != "xdrope":
        hunyuan_dense.long_context(m, a, c)
        return
    if not isinstance(found, list) or len(found) != 4:
        raise BadInput(f"{c.place}: RoPE has no four sections")
    m.array(f"{a}.rope.dimension_sections", "INT32", found)
    if c.rope.get("rope_type") == "default":
        return
    length = c.integer("max_position_embeddings")
    m.string(f"{a}.rope.scaling.type", "none")
    m.f32(f"{a}.rope.scaling.factor", float(c.rope.get("factor") or 1.0))
    m.f32(f"{a}.rope.scaling.alpha", float(c.rope.get("alpha") or 1.0))
    m.u32(f"{a}.rope.scaling.original_context_length", length)
    m.u32(f"{a}.context_length", length)


FAMILY = replace(
    hunyuan_dense.FAMILY,
    arch="hunyuan_vl",
    architectures=("HunYuanVLForConditionalGeneration",),
    classes={kind: {**hunyuan_dense.FAMILY.classes["hunyuan_v1_dense"], "tie_word_embeddings": True}
             for kind in ("hunyuan_vl", "hunyuan_vl_text")},
    assumes={**hunyuan_dense.FAMILY.assumes, "rope_type": Assumed(("default", "xdrope", "dynamic"))},
    idle=(*hunyuan_dense.FAMILY.idle, "attention_head_dim", "org_vocab_size", "routed_scaling_factor", "rope_parameters.*section"),
    keys=(*(key for key in hunyuan_dense.FAMILY.keys if key not in (
        rope_scaling, rope_sections, hunyuan_dense.long_context)), sections),
    section=section,
    spelled=untied,
    drops={"tied.*": "config.json ties it to the embedding"},
)  # fmt: skip
