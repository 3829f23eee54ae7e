"""GLM 5.3: layers of gated delta attention among layers that an indexer points into, streams of residuals, and no positions."""

from __future__ import annotations

from typing import Any

from ...errors import BadInput
from ...metadata import Metadata
from ..assumed import GATED_SILU, Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, vocab_size
from ..rules import rename
from ..tokenizers import BPE
from . import _kda
from ._glm import GLM_MOE_TOKENS
from ._hyper import clamped, hyper_connections, streams
from ._mla import KV_B, latent
from ._nextn import COUNTED, NEXTN_NAMES, counted, further, n_further, untied
from ._stated import MIXTURE, WEIGHTS, fixed
from .deepseek2 import EXPERTS_OF_MLP
from .deepseek32 import INDEXER

_LAYER = "model.layers.{bid}"


def kinds(c: Config) -> list[Any]:
    """Kinds of layers, every fourth of which has attention where it is not said."""
    return c.layer_types or ["linear_attention" if n % 4 != 3 else "indexed_attention" for n in range(c.n_layers)]


def attends(c: Config) -> list[bool]:
    """Whether each layer has latent attention, as those behind the last do."""
    return [kind != "linear_attention" for kind in kinds(c)] + [True] * n_further(c)


def indexers(c: Config) -> list[str]:
    """Class default: which layers have an indexer of their own."""
    pattern = c.get("index_topk_pattern")
    if pattern is not None:
        return [{"F": "full", "S": "shared"}.get(each, each) for each in pattern]
    frequency, offset = max(c.get("index_topk_freq") or 1, 1), c.get("index_skip_topk_offset")
    first = (2 if offset is None else offset) - 1
    return ["shared" if max(n - first, 0) % frequency else "full" for n in range(c.n_layers)]


def dense_layers(c: Config) -> int:
    """Class default: layers before the first with experts."""
    stated = c.get("mlp_layer_types")
    stated = stated if isinstance(stated, list) else ["dense"] * min(3, c.n_layers)
    return next((n for n, kind in enumerate(stated) if kind != "dense"), len(stated))


def delta(c: Config) -> dict[str, Any]:
    """Class default: the section of the layers without attention, whose keys may lie beside it."""
    return {
        "head_dim": c.get("linear_head_dim"), "num_heads": c.get("linear_num_heads"),
        "short_conv_kernel_size": c.get("linear_conv_kernel_dim"), "gate_lower_bound": c.get("linear_lower_bound"),
    }  # fmt: skip


def pooled(m: Metadata, a: str, c: Config) -> None:
    """What the indexer looks at, and which layers have one."""
    heads = _kda.section(c).get("num_heads")
    if heads not in (None, c.n_heads):
        raise BadInput(
            f"{c.place}: 'linear_attn_config' has {heads!r} heads, attention {c.n_heads}: runtimes take them for equal"
        )
    tail = c.get("index_kpool_always_select_tail")
    m.u32(f"{a}.attention.indexer.kpool", c.integer("index_kpool"))
    m.boolean(f"{a}.attention.indexer.kpool_select_tail", tail is None or bool(tail))
    if isinstance(types := c.get("indexer_types"), list):
        m.array(f"{a}.attention.indexer.types", "BOOL", [kind == "full" for kind in types])


FAMILY = Family(
    arch="glm5-next",
    named_as="glm-dsa",
    architectures=("Glm5NextForConditionalGeneration",),
    tokenizer=BPE,
    further=further,
    classes={"glm5_next_text": {
        "vocab_size": 154880, "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 2048,
        "num_hidden_layers": 45, "num_attention_heads": 64, "num_key_value_heads": 64, "n_shared_experts": 1,
        "n_routed_experts": 288, "routed_scaling_factor": 2.5, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 0,
        "v_head_dim": 256, "qk_nope_head_dim": 256, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 8,
        "norm_topk_prob": True, "hidden_act": "silu", "max_position_embeddings": 1048576, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "index_topk": 2048, "index_head_dim": 128, "index_n_heads": 32, "swiglu_limit": 10.0,
        "linear_head_dim": 128, "linear_num_heads": 64, "linear_conv_kernel_dim": 4, "linear_lower_bound": -5.0, "hc_mult": 4,
        "hc_eps": 1e-6, "hc_sinkhorn_iters": 20, "index_kpool": 16, "linear_attn_config": delta, "indexer_types": indexers,
        "first_k_dense_replace": dense_layers,
    }},
    assumes={
        **COUNTED, **{key: GATED_SILU[key] for key in ("hidden_act", "draft_vocab_size")}, "mla_use_nope": Assumed((True,)),
        "qk_rope_head_dim": Assumed((0,)), "mhc": Assumed((True,)), "attention_bias": Assumed((False,)),
        "layer_types": Assumed(
            lambda stated, _: (stated,) if {*stated} <= {"linear_attention", "indexed_attention", "full_attention"} else ()
        ),
    },
    idle=("head_dim", "qk_head_dim", "mlp_layer_types", "index_*", "linear_*", "mtp_*", "image_*", "video_*", "router_*"),
    keys=(
        *BASE, vocab_size, fixed({"attention.layer_norm_epsilon": 1e-6}), counted, latent, _kda.sizes(attends), _kda.gate_bound,
        INDEXER, pooled, streams, MIXTURE, *WEIGHTS, clamped,
    ),
    token_keys=(GLM_MOE_TOKENS,),
    spelled=lambda name, c: untied(_kda.spelled(name, c), c),
    drops={"tied.*": "config.json ties it to the embedding"},
    names={**_kda.NAMES, **NEXTN_NAMES},
    rules=(
        KV_B, EXPERTS_OF_MLP, *hyper_connections(_LAYER),
        *(rename(f"{_LAYER}.self_attn.indexer.index_kpool_compress_{part}", f"blk.{{bid}}.indexer_compressor_{part}.weight")
          for part in ("ape", "gate")),
    ),
    transforms=_kda.TRANSFORMS,
    types={"blk.*.hc_*": "F32", "blk.*.indexer_compressor_*": "F32"},
)  # fmt: skip
