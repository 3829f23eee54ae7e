"""Qwen 1: the Llama layout with fused queries, keys and values, and a width of the network that is twice the true one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, head_count_kv
from ..tokenizers import TokenizerRule
from ..tokenizers.files import TokenizerFiles
from ..tokenizers.tiktoken import read_tiktoken
from ..tokenizers.vocabulary import Vocabulary
from ._glm import tokens_by_text

_RANKS, _END = "qwen.tiktoken", "<|endoftext|>"


def read_qwen(files: TokenizerFiles, config: Mapping[str, Any], size: int | None, pre: str | None) -> Vocabulary:
    """The vocabulary of ``qwen.tiktoken``: marks of turns and 205 tokens to spare, of these as many as leave one row unused."""
    marks = [_END, "<|im_start|>", "<|im_end|>"]

    def specials(n_ranks: int) -> list[str | None]:
        room = (size or config.get("vocab_size") or n_ranks + 209) - n_ranks - len(marks) - 1
        return [*marks, *(f"<|extra_{n}|>" for n in range(max(0, min(205, room))))]

    return read_tiktoken(files, config, size, _RANKS, specials, pre or "qwen2")


def epsilon(m: Metadata, a: str, c: Config) -> None:
    """Epsilon of norms under the name that the loader asks for; the reference writes only the other."""
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("layer_norm_epsilon"))


FAMILY = Family(
    arch="qwen",
    architectures=("QWenLMHeadModel",),
    tokenizer=TokenizerRule(("ranks", "bpe"), own={"ranks": (_RANKS, read_qwen)}),
    assumes={
        "no_bias": Assumed((True,)), "scale_attn_weights": Assumed((True,)), "rotary_pct": Assumed((1.0,)),
        "use_logn_attn": Assumed((False,), "runtimes do not scale long queries"),
        "use_dynamic_ntk": Assumed((False,), "runtimes do not stretch positions beyond the context that was trained"),
    },
    idle=("kv_channels", "seq_length", "fp16", "bf16", "fp32", "softmax_in_fp32", "use_cache_*", "onnx_safe"),
    keys=(*(key for key in BASE if key is not head_count_kv), epsilon),
    token_keys=(tokens_by_text({"bos": _END, "eos": _END, "unknown": _END}),),
)  # fmt: skip
