"""DeepSeek V3.2: V3 whose attention looks where an indexer points, with the blocks that predict further tokens."""

from __future__ import annotations

from dataclasses import replace

from ..tokenizers import BPE
from . import deepseek2
from ._nextn import COUNTED, further, stated, untied
from ._stated import numbers

INDEXER = numbers({
    "attention.indexer.head_count": "index_n_heads", "attention.indexer.key_length": "index_head_dim",
    "attention.indexer.top_k": "index_topk",
})  # fmt: skip
FAMILY = replace(
    deepseek2.FAMILY,
    arch="deepseek32",
    named_as="glm-dsa",
    architectures=("DeepseekV32ForCausalLM",),
    tokenizer=BPE,
    classes={},
    assumes={**deepseek2.ASSUMES, **COUNTED},
    further=further,
    keys=(*deepseek2.KEYS, INDEXER, stated),
    spelled=untied,
)
