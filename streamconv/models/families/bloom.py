"""BLOOM: distances as biases of attention, queries, keys and values fused head by head."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, embedding_length, file_type, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import head_count_of_all, qkv_of_heads, quadruple


def context(m: Metadata, a: str, c: Config) -> None:
    """Longest context; distances have no end, so any number would do where none is stated."""
    m.u32(f"{a}.context_length", c.integer("seq_length") if c.get("seq_length") else c.hidden)


FAMILY = Family(
    arch="bloom",
    architectures=("BloomForCausalLM", "BloomModel"),
    tokenizer=BPE,
    classes={"bloom": {
        "vocab_size": 250880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "layer_norm_epsilon": 1e-5, "bos_token_id": 1,
        "eos_token_id": 2, "tie_word_embeddings": True,
    }},
    assumes={"apply_residual_connection_post_layernorm": Assumed((False,)), "n_inner": Assumed(lambda _, c: (4 * c.hidden,))},
    idle=(
        "slow_but_exact", "offset_alibi", "skip_bias_add*", "masked_softmax_fusion", "attention_softmax_in_fp32", "unk_token_id",
        "bias_dropout_fusion",
    ),
    keys=(
        context, embedding_length, quadruple, block_count, head_count, head_count_of_all, layer_norm_epsilon, file_type,
    ),
    spelled=lambda name, _: name.replace("transformer.", ""),
    transforms={"attn_qkv": qkv_of_heads},
)  # fmt: skip
