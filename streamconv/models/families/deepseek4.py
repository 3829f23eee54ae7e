"""DeepSeek V4: keys and values that all heads share, compressed; streams of residuals, experts by tables or by scores."""

from __future__ import annotations

import re

from ...kit import Narrowed
from ...metadata import Metadata
from ...rows import Rows, walk
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..rules import experts, rename
from ..tokenizers import BPE
from ._blocks import as_blocks, counts_as_blocks
from ._deepseek4 import NEXTN_NAMES, NEXTN_RULES, counts, further, placed, template
from ._hyper import clamped, hyper_connections, streams
from ._stated import WEIGHTS, numbers, reals
from .deepseek32 import INDEXER

_LAYER, _BLOCK = "layers.{bid}", "blk.{bid}"
_ROUTER = re.compile(r"layers\.(\d+)\.ffn\.gate\.(tid2eid|bias)")
_EXPERTS = experts(f"{_LAYER}.ffn.experts", gate="w1", down="w2", up="w3")
_NOT_TEXT = "not part of the text model"
#: name in a layer -> GGUF name in a block, both without suffix
_NAMES = {
    "attn.wq_a": "attn_q_a", "attn.wq_b": "attn_q_b", "attn.q_norm": "attn_q_a_norm", "attn.wkv": "attn_kv",
    "attn.kv_norm": "attn_kv_a_norm", "attn.wo_a": "attn_output_a", "attn.wo_b": "attn_output_b",
    "attn.compressor.wkv": "attn_compressor_kv", "attn.compressor.wgate": "attn_compressor_gate",
    "attn.compressor.norm": "attn_compressor_norm", "attn.indexer.wq_b": "indexer.attn_q_b",
    "attn.indexer.weights_proj": "indexer.proj", "attn.indexer.compressor.wkv": "indexer_compressor_kv",
    "attn.indexer.compressor.wgate": "indexer_compressor_gate", "attn.indexer.compressor.norm": "indexer_compressor_norm",
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "ffn.gate": "ffn_gate_inp", "ffn.gate.bias": "exp_probs_b.bias",
    "ffn.gate.bias_vl": "exp_probs_b_vl.bias", "ffn.shared_experts.w1": "ffn_gate_shexp",
    "ffn.shared_experts.w2": "ffn_down_shexp", "ffn.shared_experts.w3": "ffn_up_shexp",
}  # fmt: skip
#: the same of tensors whose names have no suffix in the checkpoint
_BARE = {
    "attn.attn_sink": "attn_sinks", "attn.compressor.ape": "attn_compressor_ape",
    "attn.indexer.compressor.ape": "indexer_compressor_ape",
}  # fmt: skip


def of_its_router(name: str, c: Config) -> str:
    """``name``, marked where it is a table or a bias that a router of the other kind has no use for."""
    found = _ROUTER.fullmatch(name)
    by_table = found is not None and int(found[1]) < c.integer("num_hash_layers")
    return name if found is None or by_table is (found[2] == "tid2eid") else f"unused.{name}"


def as_stored(rows: Rows) -> str | None:
    """Matrices keep the type that they have, and those of 8-bit floats get whole numbers of as many bits."""
    if any(getattr(each, "encoding", "").startswith("fp8") for each in walk(rows)):
        return "Q8_0"
    return rows.dtype if rows.dtype in ("BF16", "F32") else None


def attention(m: Metadata, a: str, c: Config) -> None:
    """How keys and values are compressed in each layer."""
    ratios = c.get("compress_ratios")
    m.array(f"{a}.attention.compress_ratios", "INT32", ratios if isinstance(ratios, list) else [])
    m.u32(f"{a}.embedding_length_out", c.hidden * c.integer("hc_mult"))


#: how many of the first blocks choose experts by tables
hashed = numbers({"hash_layer_count": "num_hash_layers"})

FAMILY = Family(
    arch="deepseek4",
    architectures=("DeepseekV4ForCausalLM",),
    tokenizer=BPE,
    further=further,
    classes={"deepseek_v4": class_defaults(
        129280, 1048576, 4096, None, 43, 64, 1, moe_intermediate_size=2048, head_dim=512, q_lora_rank=1024, num_experts_per_tok=6,
        n_routed_experts=256, n_shared_experts=1, scoring_func="sqrtsoftplus", norm_topk_prob=True, routed_scaling_factor=1.5,
        compress_rope_theta=160000.0, hc_mult=4, hc_sinkhorn_iters=20, hc_eps=1e-6, swiglu_limit=10.0, sliding_window=128,
        o_groups=8, o_lora_rank=1024, index_n_heads=64, index_head_dim=128, index_topk=512, num_hash_layers=3,
        qk_rope_head_dim=lambda c: c.head_dim * 64 // 512,
    )},
    assumes={
        "hidden_act": GATED_SILU["hidden_act"], "rope_type": GATED_SILU["rope_type"], "hc_mult": Assumed((4,)),
        "scoring_func": Assumed(("sqrtsoftplus",)), "topk_method": Assumed(("noaux_tc",)), "num_key_value_heads": Assumed((1,)),
        "attention_bias": Assumed((False,)),
        "compress_ratios": Assumed(lambda stated, _: (stated,) if {*stated} <= {0, 4, 128} else ()),
    },
    idle=("num_nextn_*", "layer_types", "mlp_layer_types", "compress_rate*", "expert_dtype", "vision_*", "router_*", "dspark_*"),
    keys=(
        *BASE, counts, numbers({
            "rope.dimension_count": "qk_rope_head_dim", "attention.q_lora_rank": "q_lora_rank",
            "attention.sliding_window": "sliding_window", "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_count": "n_shared_experts",
        }), *WEIGHTS, clamped, INDEXER,
        numbers({"attention.output_group_count": "o_groups", "attention.output_lora_rank": "o_lora_rank"}), attention,
        reals({"attention.compress_rope_freq_base": "compress_rope_theta"}), streams,
        hashed, counts_as_blocks,
    ),
    token_keys=(template,),
    spelled=lambda name, c: of_its_router(placed(name, c), c),
    drops={
        "mtp.*": "written alone, by --mtp: with the others runtimes predict one token at a time", "aligner.*": _NOT_TEXT,
        "image_*": _NOT_TEXT,
        "unused.*": "routers choose experts by tables in the first layers, by scores in the others",
    },
    names={
        "embed": "token_embd", "head": "output", "norm": "output_norm",
        **{f"{_LAYER}.{source}": f"{_BLOCK}.{target}" for source, target in _NAMES.items()},
        **NEXTN_NAMES,
    },
    rules=(
        rename(f"{_LAYER}.ffn.gate.tid2eid", f"{_BLOCK}.ffn_gate_tid2eid.weight")._replace(first=True),
        as_blocks(_EXPERTS), _EXPERTS, *NEXTN_RULES, *hyper_connections(_LAYER),
        *(rename(f"{_LAYER}.{source}", f"{_BLOCK}.{target}.weight") for source, target in _BARE.items()),
        *(rename(f"hc_head_{part}", f"output_hc_{part}.weight") for part in ("fn", "base", "scale")),
    ),
    transforms={"ffn_gate_tid2eid": lambda rows, _: rows if rows.dtype == "I32" else Narrowed(rows)},
    types={"*.ffn_gate_tid2eid.weight": "I32", "*.nextn.eh_proj.weight": "Q8_0"},
    type_of=as_stored,
    kept=("MXFP4",),
)  # fmt: skip
