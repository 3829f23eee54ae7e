"""The text model of Hunyuan VL: positions with sections, stretched by a number that runtimes are told."""

from __future__ import annotations

from dataclasses import replace

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..keys import rope_scaling, rope_sections
from . import hunyuan_dense
from ._nextn import untied


def sections(m: Metadata, a: str, c: Config) -> None:
    """Sections of positions and how they are stretched."""
    found = c.rope.get("xdrope_section") or c.rope.get("mrope_section")
    if not isinstance(found, list) or len(found) != 4:
        raise BadInput(f"{c.folder}/config.json: RoPE has no four sections")
    length = c.integer("max_position_embeddings")
    m.string(f"{a}.rope.scaling.type", "none")
    m.f32(f"{a}.rope.scaling.factor", float(c.rope.get("factor") or 1.0))
    m.f32(f"{a}.rope.scaling.alpha", float(c.rope.get("alpha") or 1.0))
    m.u32(f"{a}.rope.scaling.original_context_length", length)
    m.u32(f"{a}.context_length", length)
    m.array(f"{a}.rope.dimension_sections", "INT32", found)


FAMILY = replace(
    hunyuan_dense.FAMILY,
    arch="hunyuan_vl",
    architectures=("HunYuanVLForConditionalGeneration",),
    classes={kind: {**hunyuan_dense.FAMILY.classes["hunyuan_v1_dense"], "tie_word_embeddings": True}
             for kind in ("hunyuan_vl", "hunyuan_vl_text")},
    assumes={**hunyuan_dense.FAMILY.assumes, "rope_type": Assumed(("xdrope", "dynamic"))},
    idle=(*hunyuan_dense.FAMILY.idle, "attention_head_dim", "org_vocab_size", "routed_scaling_factor", "rope_parameters.*section"),
    keys=(*(key for key in hunyuan_dense.FAMILY.keys if key not in (
        rope_scaling, rope_sections, hunyuan_dense.long_context)), sections),
    spelled=untied,
    drops={"tied.*": "config.json ties it to the embedding"},
)  # fmt: skip
