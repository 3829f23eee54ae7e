"""Command mixtures: Command R7B's windows with experts from some layer on, and maybe a block that predicts a further token."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..keys import BASE, rope_dimension_count, sliding_window, vocab_size
from . import cohere2
from ._layers import window_pattern
from ._nextn import COUNTED, NEXTN_NAMES, counted, further
from ._stated import numbers
from .cohere import ASSUMED, scales
from .deepseek2 import EXPERTS_OF_MLP


def mixture(m: Metadata, a: str, c: Config) -> None:
    """Which layers have experts, their widths, and whether the weights of a token's are scaled to a sum of one."""
    width, kinds = c.integer("intermediate_size"), c.get("mlp_layer_types")
    stated = c.integer("first_k_dense_replace") if c.get("first_k_dense_replace") is not None else 0
    first = len(list(takewhile(lambda kind: kind == "dense", kinds))) if isinstance(kinds, list) else stated
    m.u32(f"{a}.leading_dense_block_count", first)
    m.u32(f"{a}.expert_feed_forward_length", width)
    m.boolean(f"{a}.expert_weights_norm", bool(c.get("norm_topk_prob")))
    if c.get("num_shared_experts"):
        shared = c.integer("num_shared_experts")
        m.u32(f"{a}.expert_shared_count", shared)
        m.u32(f"{a}.expert_shared_feed_forward_length", width * shared)


FAMILY = replace(
    cohere2.FAMILY,
    arch="cohere2moe",
    named_as="glm4moe",
    architectures=("Cohere2MoeForCausalLM",),
    classes={},
    further=further,
    assumes={**ASSUMED, **COUNTED, "shared_expert_combination_strategy": Assumed(("average",))},
    idle=("sliding_window_pattern", "prefix_dense_sliding_window_pattern", "use_*", "position_embedding_type"),
    keys=(
        *BASE, numbers({"feed_forward_length": ("prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size")}),
        scales, sliding_window, window_pattern(4), vocab_size, mixture, counted, rope_dimension_count,
    ),
    drops={},
    names=NEXTN_NAMES,
    rules=(*cohere2.FAMILY.rules, EXPERTS_OF_MLP),
)  # fmt: skip
