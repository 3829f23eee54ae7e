"""LFM 2: short convolutions in most layers, attention in the others."""

from __future__ import annotations

from typing import Any

from ...kit import squeezed
from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE, pooling_type, vocab_size
from ..names import plain_name
from ..tokenizers import BPE
from ._stated import numbers, reals


def heads(m: Metadata, a: str, c: Config) -> None:
    """Key/value heads of each layer, none where there is a convolution."""
    kinds, listed = c.get("layer_types"), c.get("full_attn_idxs")
    if not isinstance(kinds, list):
        all_of_them = not isinstance(listed, list)
        kinds = ["full_attention" if all_of_them or n in listed else "conv" for n in range(c.n_layers)]
    m.array(f"{a}.attention.head_count_kv", "INT32", [c.n_kv_heads if kind != "conv" else 0 for kind in kinds])


def width(m: Metadata, a: str, c: Config) -> None:
    """Width of the network, of which the class makes two thirds, a share of these, and a multiple of some number."""
    n = c.integer("block_ff_dim", "intermediate_size")
    if c.get("block_auto_adjust_ff_dim"):
        n = 2 * n // 3
        if c.get("block_ffn_dim_multiplier") is not None:
            n = int(c.real("block_ffn_dim_multiplier") * n)
        multiple = max(1, c.integer("block_multiple_of"))
        n = -(-n // multiple) * multiple
    m.u32(f"{a}.feed_forward_length", n)


def kinds(attention: str) -> Assumed:
    """Layers are convolutions or attention of this kind."""
    return Assumed(lambda stated, _: ([kind if kind == "conv" else attention for kind in stated],))


LFM_KEYS = (*BASE, vocab_size, numbers({"shortconv.l_cache": "conv_L_cache"}), reals({
    "attention.layer_norm_rms_epsilon": ("norm_eps", "block_norm_eps")}), heads, pooling_type)  # fmt: skip
LFM_CLASS = {
    "norm_eps": 1e-5,
    "conv_L_cache": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}


def defaults(hidden: int, ffn: int, **more: Any) -> dict[str, Any]:
    """Class defaults; what others call the epsilon of norms is not there."""
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return class_defaults(
        65536, 128000, hidden, ffn, 32, 32, 8, **{**LFM_CLASS, "rope_parameters": rope, "rms_norm_eps": None, **more}
    )


FAMILY = Family(
    arch="lfm2",
    architectures=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
    tokenizer=BPE,
    classes={"lfm2": defaults(
        2560, 12288, block_multiple_of=256, block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=True,
    )},
    assumes={"conv_bias": Assumed((False,)), "use_pos_enc": Assumed((True,)), "block_use_swiglu": Assumed((True,)),
             "conv_use_xavier_init": Assumed((True, False)), "rope_type": Assumed(("default",)),
             "layer_types": kinds("full_attention")},
    idle=("block_dim", "block_multiple_of", "block_ffn_dim_multiplier", "block_mlp_init_scale", "block_out_init_scale",
          "block_use_xavier_init", "block_norm_eps", "conv_dim*", "hidden_act", "num_heads", "full_attn_idxs"),
    keys=(*LFM_KEYS, width),
    spelled=lambda name, _: plain_name(name.removeprefix("lfm.")),
    names={"model.embedding_norm": "token_embd_norm"},
    transforms={"shortconv.conv": lambda rows, _: squeezed(rows)},
)  # fmt: skip
