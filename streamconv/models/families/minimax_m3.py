"""MiniMax M3: M2 with norms of heads as offsets from one, dense layers first, and an indexer of blocks to look at."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ._stated import fixed, numbers, reals
from .gemma import plus_one
from .minimax_m2 import FAMILY as M2

_SPARSE = {
    "head_count": "sparse_num_index_heads", "key_length": "sparse_index_dim", "top_k": "sparse_topk_blocks",
    "block_size": "sparse_block_size", "local_blocks": "sparse_local_block",
}  # fmt: skip


def indexer(m: Metadata, a: str, c: Config) -> None:
    """Sizes of the indexer, and how many layers before the first with experts."""
    stated = c.get("sparse_attention_config")
    if not isinstance(stated, dict):
        raise BadInput(f"{c.place}: 'sparse_attention_config' is missing", "Take config.json from the model's page.")
    sparse = replace(c, values=stated)
    for key, name in _SPARSE.items():
        m.u32(f"{a}.attention.indexer.{key}", sparse.integer(name))
    with_experts = c.get("moe_layer_freq") or []
    m.u32(f"{a}.leading_dense_block_count", len(list(takewhile(lambda n: n == 0, with_experts))))


def _supported(stated: object, c: Config) -> tuple[object, ...]:
    """Sparse attention as runtimes compute it: in every layer with an indexer, and without blocks that are always taken."""
    said = stated if isinstance(stated, dict) else {}
    return (stated,) if said.get("use_sparse_attention") is not False and not said.get("sparse_init_block") else ()


_SELF, _MOE = "model.layers.{bid}.self_attn", "model.layers.{bid}.block_sparse_moe"
FAMILY = replace(
    M2,
    classes={},
    arch="minimax-m3",
    named_as="minimax-m2",
    architectures=("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
    assumes={
        **GATED_SILU, "hidden_act": Assumed(("swigluoai",)), "swiglu_alpha": Assumed((1.702,)), "swiglu_limit": Assumed((7.0,)),
        "use_qk_norm": Assumed((True,)), "qk_norm_type": Assumed(("per_head",)), "use_gemma_norm": Assumed((True,)),
        "sparse_attention_config": Assumed(_supported),
    },
    idle=(*M2.idle, "shared_intermediate_size", "projector_*", "image_*", "video_*", "img_token_*", "vision_*"),
    keys=(*M2.keys, numbers({
        "feed_forward_length": ("dense_intermediate_size", "intermediate_size"), "expert_shared_count": "n_shared_experts",
    }), reals({"expert_weights_scale": "routed_scaling_factor"}), fixed({"expert_weights_norm": True}), indexer),
    names={
        **{f"model.layers.{{bid}}.mlp.{part}_proj": f"blk.{{bid}}.ffn_{part}" for part in ("down", "gate", "up")},
        **{f"{_MOE}.shared_experts.{part}_proj": f"blk.{{bid}}.ffn_{part}_shexp" for part in ("down", "gate", "up")},
        **{f"{_SELF}.index_{part}_proj": f"blk.{{bid}}.indexer.{part}_proj" for part in "qk"},
        **{f"{_SELF}.index_{part}_norm": f"blk.{{bid}}.indexer.{part}_norm" for part in "qk"},
    },
    types={"blk.*.indexer.*": "F32"},
    transforms={"*norm": plus_one},
)  # fmt: skip
