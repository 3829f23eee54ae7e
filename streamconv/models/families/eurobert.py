"""EuroBERT: an encoder of the Llama layout, whose heads need no other order."""

from __future__ import annotations

from ...metadata import Metadata
from ..config import Config, head_width
from ..family import Family, class_defaults
from ..keys import BASE, pooling_type
from ..tokenizers import BPE
from ._stated import fixed
from .bert import looks_both_ways


def without_start(m: Metadata, _a: str, _c: Config) -> None:
    """Nothing goes before a text, unless the tokenizer's files say so."""
    if "tokenizer.ggml.add_bos_token" not in m:
        m.boolean("tokenizer.ggml.add_bos_token", False)


FAMILY = Family(
    arch="eurobert",
    architectures=("EuroBertModel", "JinaEmbeddingsV5Model"),
    tokenizer=BPE,
    classes={"eurobert": class_defaults(
        128256, 8192, 768, 3072, 12, 12, None, head_dim=head_width, rms_norm_eps=1e-5, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0},
    )},
    idle=("clf_pooling", "classifier_pooling", "mask_token", "word_embedding_dimension", "pooling_mode*", "mlp_bias"),
    keys=(*BASE, looks_both_ways, pooling_type, fixed({"rope.scaling.type": "none"})),
    token_keys=(without_start,),
    spelled=lambda name, _: name.removeprefix("model."),
)  # fmt: skip
