"""GPT NeoX and Pythia: attention and network side by side, queries, keys and values fused head by head."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family, class_defaults
from ..keys import block_count, context_length, embedding_length, feed_forward_length, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import GELU, qkv_of_heads
from .gemma import unusual_rope


def attention(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of a head, and the order of attention and network."""
    share = c.rope.get("partial_rotary_factor")
    m.u32(f"{a}.rope.dimension_count", int((1.0 if share is None else share) * (c.hidden // max(c.n_heads, 1))))
    parallel = c.get("use_parallel_residual")
    m.boolean(f"{a}.use_parallel_residual", True if parallel is None else bool(parallel))


FAMILY = Family(
    arch="gptneox",
    architectures=("GPTNeoXForCausalLM",),
    tokenizer=BPE,
    classes={"gpt_neox": class_defaults(
        50432, 2048, 6144, 24576, 44, 64, None, rms_norm_eps=None, layer_norm_eps=1e-5, hidden_act="gelu", rotary_pct=0.25,
        use_parallel_residual=True, bos_token_id=0, eos_token_id=2,
    )},
    assumes={"hidden_act": GELU, "rope_type": GATED_SILU["rope_type"]},
    idle=("is_decoder",),
    keys=(
        context_length, embedding_length, block_count, feed_forward_length, head_count, attention, layer_norm_epsilon, unusual_rope,
    ),
    transforms={"attn_qkv": qkv_of_heads},
)  # fmt: skip
