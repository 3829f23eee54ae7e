"""StarCoder 1: GPT 2 with one key/value head for all heads."""

from __future__ import annotations

from ..assumed import Assumed
from ..family import Family
from ..keys import block_count, context_length, embedding_length, file_type, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import GELU, one_kv_head, quadruple

FAMILY = Family(
    arch="starcoder",
    architectures=("GPTBigCodeForCausalLM",),
    tokenizer=BPE,
    classes={"gpt_bigcode": {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_pytorch_tanh", "multi_query": True, "tie_word_embeddings": True, "bos_token_id": 50256,
        "eos_token_id": 50256,
    }},
    assumes={
        "activation_function": GELU, "multi_query": Assumed((True,)), "scale_attn_weights": Assumed((True,)),
        "n_inner": Assumed(lambda _, c: (4 * c.hidden,)), "add_cross_attention": Assumed((False,)),
    },
    idle=(
        "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner", "max_batch_size", "max_sequence_length",
        "num_key_value_heads", "pad_key_length", "pre_allocate_kv_cache", "validate_runner_input", "summary_*",
    ),
    keys=(
        context_length, embedding_length, quadruple, block_count, head_count, one_kv_head, layer_norm_epsilon, file_type,
    ),
)  # fmt: skip
