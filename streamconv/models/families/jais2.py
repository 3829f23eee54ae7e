"""Jais 2: layer norms, biases everywhere, no gates."""

from __future__ import annotations

from ..assumed import Assumed
from ..family import Family
from ..keys import BASE, rope_dimension_count
from ..tokenizers import BPE

FAMILY = Family(
    arch="jais2",
    architectures=("Jais2ForCausalLM",),
    tokenizer=BPE,
    assumes={"hidden_act": Assumed(("relu2",))},
    keys=(*BASE, rope_dimension_count),
)
