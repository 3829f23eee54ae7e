"""Jina's second embedders: BERT with positions as biases of attention, and gates that lie in one matrix with what they gate."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..tokenizers import BPE, WHITESPACE
from . import bert
from ._encoder import token_types


def meant(family: Family, c: Config) -> Family:
    """What its tokenizer is."""
    if (c.side("tokenizer_config.json") or {}).get("tokenizer_class") != "RobertaTokenizer":
        return family
    step = (c.side("tokenizer.json") or {}).get("pre_tokenizer")
    words = isinstance(step, dict) and step.get("type") == "Whitespace"
    return replace(family, tokenizer=WHITESPACE if words else BPE, token_keys=(token_types,))


FAMILY = replace(
    bert.FAMILY,
    arch="jina-bert-v2",
    architectures=("JinaBertModel", "JinaBertForMaskedLM"),
    classes={"bert": bert.BERT_CLASS},
    variant=meant,
    assumes={
        **bert.FAMILY.assumes, "position_embedding_type": Assumed(("alibi",)), "feed_forward_type": Assumed(("geglu", "reglu")),
    },
    idle=(*bert.FAMILY.idle, "emb_pooler", "use_qk_norm", "attn_implementation", "model_max_length"),
)  # fmt: skip
