"""The text model of Qwen 2 VL, 2.5 VL and 2.5 Omni: Qwen 2 with positions of three kinds."""

from __future__ import annotations

from dataclasses import replace

from ..family import class_defaults
from ..keys import BASE
from . import qwen2

_VL = class_defaults(
    152064, 32768, 8192, 29568, 80, 64, 8, rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
)  # fmt: skip
_OMNI = class_defaults(
    152064, 32768, 3584, 18944, 28, 28, 4, tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
)  # fmt: skip

FAMILY = replace(
    qwen2.FAMILY,
    arch="qwen2vl",
    architectures=(
        "Qwen2VLForConditionalGeneration", "Qwen2VLModel", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5OmniModel",
        "Qwen2_5OmniForConditionalGeneration",
    ),
    classes={
        **{kind: _VL for kind in ("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text")}, "qwen2_5_omni_text": _OMNI,
    },
    keys=BASE,
)  # fmt: skip
