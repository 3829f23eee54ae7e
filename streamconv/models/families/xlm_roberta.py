"""XLM-RoBERTa: RoBERTa with Unigram pieces. Jina's third embedder rotates heads instead, and has adapters beside its weights."""

from __future__ import annotations

import re
from dataclasses import replace

from ..assumed import Assumed
from ..config import Config
from ..family import Family
from ..keys import BASE, causal, head_count_kv
from ..tokenizers import XLMR
from . import roberta
from ._encoder import bare


def spelled(name: str, c: Config) -> str:
    """``name`` without what parametrizations put into it."""
    return bare(re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name), c)


def rotated(family: Family, c: Config) -> Family:
    """Jina's, where there are adapters; they are other files' matter."""
    if not c.get("lora_adaptations"):
        return family
    common = tuple(key for key in BASE if key not in (causal, head_count_kv))
    return replace(
        family, arch="jina-bert-v3", keys=(*common, *family.keys[len(common):]), transforms={},
        assumes={**family.assumes, "position_embedding_type": Assumed(("rotary",))},
        drops={**family.drops, "*.lora_[AB]": "an adapter, which is a file of its own"},
        idle=(*family.idle, "lora_*", "matryoshka_dimensions", "use_*", "truncate_dim", "task_instructions"),
    )  # fmt: skip


FAMILY = replace(
    roberta.FAMILY,
    architectures=("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    tokenizer=XLMR,
    classes={"xlm-roberta": {**roberta.FAMILY.classes["roberta"], "vocab_size": 30522}},
    variant=rotated,
    spelled=spelled,
)
