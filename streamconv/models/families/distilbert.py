"""DistilBERT: a shorter BERT that knows no segments."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import Assumed
from . import bert
from ._encoder import bare, classifier_pooling
from ._stated import fixed

FAMILY = replace(
    bert.FAMILY,
    architectures=("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
    classes={"distilbert": {
        "vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768, "hidden_dim": 3072,
        "activation": "gelu", "pad_token_id": 0, "tie_word_embeddings": True,
    }},
    assumes={"activation": Assumed(("gelu",))},
    idle=(*bert.FAMILY.idle, "sinusoidal_pos_embds"),
    keys=(*bert.FAMILY.keys, fixed({"attention.layer_norm_epsilon": 1e-12}), classifier_pooling),
    spelled=bare,
    drops={**bert.FAMILY.drops, "vocab_*": "a head of pre-training"},
)  # fmt: skip
