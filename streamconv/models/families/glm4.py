"""GLM 4 (0414) and the text models of GLM 4V and GLM OCR: half-rotated heads, norms behind each sublayer, fused gates."""

from __future__ import annotations

from ...kit import cut, every, join
from ...rows import Rows
from ..assumed import GATED_SILU
from ..config import Config
from ..family import Family, class_defaults
from ..keys import BASE
from ..tokenizers import BPE
from ._glm import GLM4_TOKENS, rotated, rotated_dimensions
from ._nextn import COUNTED, NEXTN_NAMES, stated

GLM_ASSUMES = {key: value for key, value in GATED_SILU.items() if key != "partial_rotary_factor"}


def by_parity(rows: Rows, c: Config) -> Rows:
    """In each head, of the dimensions that are rotated those of even number first; where positions have sections."""
    if not c.rope.get("mrope_section"):
        return rows
    width, n = c.head_dim, rotated(c)
    if rows.shape[0] % width:
        raise ValueError(f"{rows.shape[0]} rows are not heads of {width}")
    heads = [cut(rows, at, at + width) for at in range(0, rows.shape[0], width)]
    parts = [part for h in heads for part in (every(cut(h, 0, n), 2, 0), every(cut(h, 0, n), 2, 1), cut(h, n, width))]
    return join([part for part in parts if part.shape[0]])


FAMILY = Family(
    arch="glm4",
    architectures=("Glm4ForCausalLM", "Glm4vForConditionalGeneration", "GlmOcrForConditionalGeneration"),
    tokenizer=BPE,
    classes={
        "glm4": class_defaults(151552, 131072, 4096, 13696, 40, 32, 2, head_dim=128, rms_norm_eps=1.5625e-07, rope_parameters={
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
        "glm4v_text": class_defaults(151552, 32768, 4096, 13696, 40, 32, 2, rms_norm_eps=1e-5),
        "glm_ocr_text": class_defaults(
            59392, 131072, 1024, 4096, 16, 16, 8, head_dim=128, rms_norm_eps=1e-5, num_nextn_predict_layers=0,
        ),
    },
    assumes={**GLM_ASSUMES, **COUNTED},
    idle=("attention_bias", "image_*", "video_*", "num_nextn_*"),
    keys=(*BASE, rotated_dimensions, stated),
    token_keys=(GLM4_TOKENS,),
    names=NEXTN_NAMES,
    transforms={"attn_q": by_parity, "attn_k": by_parity},
)  # fmt: skip
