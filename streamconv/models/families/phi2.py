"""Phi 1, 1.5 and 2: attention and network side by side, biases everywhere, a part of each head rotated."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family, class_defaults
from ..keys import block_count, context_length, embedding_length, file_type, head_count, layer_norm_epsilon
from ..tokenizers import BPE
from ._gpt import GELU, head_count_of_all, quadruple
from .gemma import unusual_rope


def n_rotated(c: Config) -> int:
    """Rotated dimensions of a head."""
    share = c.rope.get("partial_rotary_factor")
    return int((1.0 if share is None else share) * c.hidden) // max(c.n_heads, 1)


def rope_dimension_count(m: Metadata, a: str, c: Config) -> None:
    """Rotated dimensions of a head."""
    m.u32(f"{a}.rope.dimension_count", n_rotated(c))


def no_beginning(m: Metadata, a: str, c: Config) -> None:
    """Nothing goes before a text, unless the tokenizer says so."""
    m.boolean("tokenizer.ggml.add_bos_token", False)


FAMILY = Family(
    arch="phi2",
    architectures=("PhiForCausalLM",),
    tokenizer=BPE,
    classes={"phi": class_defaults(
        51200, 2048, 2048, 8192, 24, 32, None, layer_norm_eps=1e-5, partial_rotary_factor=0.5, hidden_act="gelu_new",
    )},
    assumes={
        "hidden_act": GELU, "qk_layernorm": Assumed((False,)), "rope_type": Assumed(("default", "linear", "yarn")),
        "intermediate_size": Assumed(lambda _, c: (4 * c.hidden,)), "num_key_value_heads": Assumed(lambda _, c: (c.n_heads,)),
    },
    keys=(
        context_length, embedding_length, quadruple, block_count, head_count, head_count_of_all, layer_norm_epsilon,
        rope_dimension_count, unusual_rope, file_type, no_beginning,
    ),
)  # fmt: skip
