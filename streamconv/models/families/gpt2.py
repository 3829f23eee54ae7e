"""GPT 2: learned positions, projections stored with inputs for rows."""

from __future__ import annotations

from ...kit import Transposed
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, context_length, embedding_length, file_type, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import GELU, quadruple


def transposed(rows: Rows, _config: Config) -> Rows:
    """A matrix with outputs for rows; a bias as it is."""
    return Transposed(rows) if len(rows.shape) > 1 else rows


FAMILY = Family(
    arch="gpt2",
    architectures=("GPT2LMHeadModel",),
    tokenizer=BPE,
    classes={"gpt2": {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new", "tie_word_embeddings": True, "bos_token_id": 50256, "eos_token_id": 50256,
    }},
    assumes={
        "activation_function": GELU, "scale_attn_weights": Assumed((True,)), "add_cross_attention": Assumed((False,)),
        "scale_attn_by_inverse_layer_idx": Assumed((False,)), "n_inner": Assumed(lambda _, c: (4 * c.hidden,)),
    },
    idle=("summary_*", "reorder_and_upcast_attn"),
    keys=(block_count, context_length, embedding_length, quadruple, head_count, layer_norm_epsilon, file_type),
    spelled=lambda name, _: name.removeprefix("transformer."),
    drops={"h.*.attn.bias": "a buffer", "h.*.attn.masked_bias": "a buffer"},
    transforms={stem: transposed for stem in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")},
)  # fmt: skip
