"""NeoBERT: an encoder of the Llama layout with queries, keys and values in one matrix, and gates in one with what they gate."""

from __future__ import annotations

from dataclasses import replace

from ...metadata import Metadata
from ..assumed import ROPE
from ..config import Config
from . import bert
from ._encoder import bare, classifier_pooling
from ._stated import fixed


def sizes(m: Metadata, a: str, c: Config) -> None:
    """The width of the network, of which the class makes two thirds; the epsilon of its norms."""
    m.u32(f"{a}.feed_forward_length", 2 * c.integer("intermediate_size") // 3)
    m.f32(f"{a}.attention.layer_norm_rms_epsilon", c.real("norm_eps") if c.get("norm_eps") is not None else 1e-6)


FAMILY = replace(
    bert.FAMILY,
    arch="neo-bert",
    architectures=("NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"),
    classes={},
    assumes=ROPE,
    idle=(*bert.FAMILY.idle, "*_init_range", "dim_head", "kwargs", "flash_attention", "base_scale"),
    keys=(
        *bert.FAMILY.keys, sizes, classifier_pooling,
        fixed({"rope.freq_base": 10000.0, "rope.scaling.type": "none", "pooling_type": 2}),
    ),
    spelled=bare,
    drops={**bert.FAMILY.drops, "decoder.*": "a head of pre-training"},
)  # fmt: skip
