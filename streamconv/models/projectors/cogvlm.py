"""The vision tower of CogVLM, and the gated network behind it."""

from __future__ import annotations

from ..assumed import Assumed
from ._vision import epsilon, projector, vision, within

FAMILY = projector(
    "cogvlm",
    ("CogVLMForCausalLM",),
    keys=(vision, epsilon("layer_norm_eps", default=1e-6)),
    assumes={"hidden_act": Assumed(("gelu",))},
    why_not=within("vision."),
    spelled=lambda name, _config: name,
)
