"""Jais 2: layer norms, biases everywhere, no gates."""

from __future__ import annotations

from ..assumed import Assumed
from ..config import head_width
from ..family import Family, class_defaults
from ..keys import BASE, rope_dimension_count
from ..tokenizers import BPE

FAMILY = Family(
    arch="jais2",
    architectures=("Jais2ForCausalLM",),
    tokenizer=BPE,
    classes={"jais2": class_defaults(
        150272, 8192, 3328, 26624, 32, 26, None, head_dim=head_width, rms_norm_eps=None, layer_norm_eps=1e-5, hidden_act="relu2",
    )},
    assumes={"hidden_act": Assumed(("relu2",))},
    keys=(*BASE, rope_dimension_count),
)  # fmt: skip
