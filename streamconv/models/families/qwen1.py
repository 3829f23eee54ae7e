"""Qwen 1: the Llama layout with fused queries, keys and values, and a width of the network that is twice the true one."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv
from ..tokenizers import QWEN1
from ._glm import tokens_by_text

_END = "<|endoftext|>"


def epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of norms under the name that the loader asks for; the reference writes only the other."""
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("layer_norm_epsilon"))


FAMILY = Family(
    arch="qwen",
    architectures=("QWenLMHeadModel",),
    tokenizer=QWEN1,
    assumes={
        "no_bias": Assumed((True,)), "scale_attn_weights": Assumed((True,)), "rotary_pct": Assumed((1.0,)),
        "use_logn_attn": Assumed((False,), "runtimes do not scale long queries"),
        "use_dynamic_ntk": Assumed((False,), "runtimes do not stretch positions beyond the context that was trained"),
    },
    idle=("kv_channels", "seq_length", "fp16", "bf16", "fp32", "softmax_in_fp32", "use_cache_*", "onnx_safe"),
    keys=(*(key for key in BASE if key is not head_count_kv), epsilon),
    token_keys=(tokens_by_text({"bos": _END, "eos": _END, "unknown": _END}),),
)  # fmt: skip
