"""ChatGLM and GLM 4 9B: fused gates, mostly fused queries, keys and values, and the old names of keys."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type, head_count
from ..names import plain_name
from ..tokenizers import CHATGLM
from ._glm import tokens_by_text


def sizes(m: Metadata, a: str, c: Config) -> None:
    """Widths, heads and positions."""
    m.u32(f"{a}.context_length", c.integer("seq_length", "hidden_size"))
    wide = c.get("ffn_hidden_size", "intermediate_size")
    m.u32(
        f"{a}.feed_forward_length", 4 * c.hidden if wide is None else c.integer("ffn_hidden_size", "intermediate_size")
    )
    m.u32(
        f"{a}.attention.head_count_kv", c.integer("multi_query_group_num", "num_key_value_heads", "num_attention_heads")
    )
    stated = c.get("layernorm_epsilon")
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", 1e-5 if stated is None else c.real("layernorm_epsilon"))
    factor = c.rope.get("partial_rotary_factor")
    width = c.integer("attention_dim") if c.get("attention_dim") else c.hidden // max(c.n_heads, 1)
    m.u32(f"{a}.rope.dimension_count", int(width * (0.5 if factor is None else factor)))
    ratio = c.real("rope_ratio") if c.get("rope_ratio") is not None else 1
    m.f32(f"{a}.rope.freq_base", 10000.0 * ratio)


def without_start(m: Metadata, _a: str, _c: Config) -> None:
    """Nothing goes before a text."""
    if "tokenizer.ggml.add_bos_token" not in m:
        m.boolean("tokenizer.ggml.add_bos_token", False)


FAMILY = Family(
    arch="chatglm",
    architectures=("GlmForCausalLM", "ChatGLMModel", "ChatGLMForConditionalGeneration"),
    tokenizer=CHATGLM,
    assumes={
        "hidden_act": Assumed(("silu",)), "rmsnorm": Assumed((True,)), "post_layer_norm": Assumed((True,)),
        "apply_residual_connection_post_layernorm": Assumed((False,)), "add_bias_linear": Assumed((False,)),
        "rope_type": Assumed(("default",)),
    },
    idle=(
        "original_rope", "kv_channels", "multi_query_attention", "padded_vocab_size", "add_qkv_bias", "bias_dropout_fusion",
        "apply_query_key_layer_scaling", "attention_softmax_in_fp32", "fp32_residual_connection", "interleaved_qkv", "pre_seq_len",
        "prefix_projection", "quantization_bit", "classifier_*", "head_dim", "max_position_embeddings", "rms_norm_eps",
    ),
    keys=(block_count, embedding_length, head_count, sizes, file_type),
    token_keys=(tokens_by_text({"eos": "<|endoftext|>", "unknown": "<|endoftext|>", "eot": "<|user|>"}), without_start),
    n_tokens=lambda c: c.integer("padded_vocab_size") if c.get("padded_vocab_size") else None,
    spelled=lambda name, _: plain_name(name.removeprefix("transformer.")),
)  # fmt: skip
