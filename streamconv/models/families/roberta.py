"""RoBERTa: BERT with byte-level BPE and positions that begin behind that of padding."""

from __future__ import annotations

from dataclasses import replace

from ..tokenizers import BPE
from . import bert
from ._encoder import bare, behind_padding, classifier_pooling, length_behind_padding, token_types

FAMILY = replace(
    bert.FAMILY,
    architectures=("RobertaModel", "RobertaForSequenceClassification"),
    tokenizer=BPE,
    classes={"roberta": {
        **bert.BERT_CLASS, "vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 2,
    }},
    keys=(*bert.FAMILY.keys, length_behind_padding, classifier_pooling),
    token_keys=(token_types,),
    spelled=bare,
    drops={**bert.FAMILY.drops, "lm_head.*": "a head of pre-training"},
    transforms={"position_embd": behind_padding},
)  # fmt: skip
