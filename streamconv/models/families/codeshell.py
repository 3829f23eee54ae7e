"""CodeShell: GPT 2 with grouped key/value heads and rotated positions."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import block_count, context_length, embedding_length, file_type, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import GELU, quadruple


def attention(m: Metadata, a: str, c: Config) -> None:
    """Groups of heads, and positions as the class has them."""
    m.u32(f"{a}.attention.head_count_kv", c.integer("num_query_groups"))
    m.f32(f"{a}.rope.freq_base", 10000.0)
    m.string(f"{a}.rope.scaling.type", "linear")
    m.f32(f"{a}.rope.scaling.factor", 1.0)


FAMILY = Family(
    arch="codeshell",
    architectures=("CodeShellForCausalLM",),
    tokenizer=BPE,
    assumes={
        "activation_function": GELU, "position_embedding_type": Assumed(("rope",)), "group_query_attention": Assumed((True,)),
        "rope_type": Assumed(("default",), "the output says that positions are not scaled"), "rope_theta": Assumed((10000,)),
        "scale_attn_weights": Assumed((True,)), "n_inner": Assumed(lambda _, c: (4 * c.hidden,)),
    },
    idle=("multi_query", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "summary_*"),
    keys=(
        context_length, embedding_length, quadruple, block_count, head_count, attention, layer_norm_epsilon, file_type,
    ),
)  # fmt: skip
