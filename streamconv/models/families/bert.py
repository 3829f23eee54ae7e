"""BERT and its embedders and classifiers: an encoder with learned positions, norms behind each sublayer and biases everywhere."""

from __future__ import annotations

from typing import Any

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, causal, head_count_kv, pooling_type
from ..rules import Rule
from ..tokenizers import BERT

_UNUSED = "embeddings are what is before the heads of pre-training"


def labels(c: Config) -> list[str]:
    """What a classifier tells apart, [] where the class made the names up."""
    stated: Any = c.get("id2label")
    if not isinstance(stated, dict) or not all(str(key).isdecimal() for key in stated):
        return []
    found = [str(stated[key]) for key in sorted(stated, key=int)]
    return [] if len(found) == 2 and found[0] == "LABEL_0" else found


def has_labels(config: Config, _block: int) -> bool:
    """Whether it is a classifier with labels of its own."""
    return bool(labels(config))


def looks_both_ways(m: Metadata, a: str, c: Config) -> None:
    """Attention is not causal, whatever the configuration says."""
    m.boolean(f"{a}.attention.causal", False)


def output_labels(m: Metadata, a: str, c: Config) -> None:
    """What a classifier tells apart."""
    m.array(f"{a}.classifier.output_labels", "STRING", labels(c))


def spelled(name: str, _config: Config) -> str:
    """``name`` as the bare model spells it; old checkpoints call the parts of norms gamma and beta."""
    name = name.removeprefix("bert.")
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name


BERT_CLASS = {
    "vocab_size": 30522, "max_position_embeddings": 512, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "type_vocab_size": 2,
    "tie_word_embeddings": True,
}  # fmt: skip
FAMILY = Family(
    arch="bert",
    architectures=("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "CamembertModel"),
    tokenizer=BERT,
    classes={kind: BERT_CLASS for kind in ("bert", "camembert")},
    idle=("pooler_*", "directionality", "pooling_mode*", "word_embedding_dimension"),
    assumes={
        "hidden_act": Assumed(("gelu",)), "position_embedding_type": Assumed(("absolute",)), "is_decoder": Assumed((False,)),
        "add_cross_attention": Assumed((False,)),
    },
    keys=(
        *(key for key in BASE if key not in (causal, head_count_kv)), looks_both_ways, pooling_type, output_labels,
    ),
    spelled=spelled,
    misfits=("cls.weight", "cls.bias"),
    drops={"pooler.*": _UNUSED, "cls.*": _UNUSED, "embeddings.position_ids": "a buffer"},
    rules=tuple(
        Rule((f"cls.output.{part}",), (f"classifier.{part}",), when=has_labels) for part in ("weight", "bias")
    ),
)  # fmt: skip
