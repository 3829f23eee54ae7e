"""Phi 3.5 mixtures: Phi 3 with experts, apart projections and biases everywhere."""

from __future__ import annotations

from dataclasses import replace

from ..assumed import Assumed
from ..family import class_defaults
from ..keys import expert_counts
from ..rules import experts
from . import phi3
from ._longrope import stretch

_SCALE = Assumed(lambda _, c: (stretch(c),), "runtimes derive the scale of attention from the lengths of the contexts")
FAMILY = replace(
    phi3.FAMILY,
    arch="phimoe",
    architectures=("PhiMoEForCausalLM",),
    classes={"phimoe": class_defaults(
        32064, 131072, 4096, 6400, 32, 32, 8, rms_norm_eps=1e-5, num_local_experts=16, num_experts_per_tok=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    )},
    assumes={**phi3.ASSUMED, "long_mscale": _SCALE, "short_mscale": _SCALE},
    keys=(*phi3.FAMILY.keys, expert_counts),
    rules=(*phi3.FAMILY.rules, experts("model.layers.{bid}.block_sparse_moe.experts", gate="w1", down="w2", up="w3")),
)  # fmt: skip
