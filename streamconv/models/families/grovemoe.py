"""GroveMoE: pairs of experts share a smaller one."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..rules import experts
from . import qwen3moe
from ._stated import fixed


def chunks(m: Metadata, a: str, c: Config) -> None:
    """Width of what experts share."""
    m.u32(f"{a}.expert_chunk_feed_forward_length", c.integer("head_dim") if c.get("head_dim") else 128)


_CHUNKS = experts("model.layers.{bid}.mlp.chunk_experts", down="down_proj", gate="gate_proj", up="up_proj")
FAMILY = replace(
    qwen3moe.FAMILY,
    arch="grovemoe",
    architectures=("GroveMoeForCausalLM", "modeling_grove_moe.GroveMoeForCausalLM"),
    classes={},
    assumes={**qwen3moe.FAMILY.assumes, "parallel_expert_num": Assumed((2,))},
    keys=(*qwen3moe.FAMILY.keys, chunks, fixed({"experts_per_group": 2, "expert_group_scale": 0.05})),
    drops={"*.expert_bias": "no runtime reads it"},
    rules=(*qwen3moe.FAMILY.rules, _CHUNKS._replace(
        targets=tuple(target.replace("_exps", "_chexps") for target in _CHUNKS.targets), make=lambda rows, _: rows)),
)  # fmt: skip
