"""The text model of the mixtures of Qwen 3 VL and Qwen 3 Omni; packed experts are stored with inputs for rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...kit import Transposed, split
from ...rows import Rows
from ..assumed import scaled_to_one
from ..config import Config, head_width
from ..family import class_defaults
from ..rules import Rule, experts
from . import qwen3moe, qwen3vl

_EXPERTS = "model.layers.{bid}.mlp.experts"
_DOWN, _GATE, _UP = (f"blk.{{bid}}.ffn_{part}_exps.weight" for part in ("down", "gate", "up"))


def _turned(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    return [Transposed(rows[0])]


def _turned_halves(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Gate and up, whose columns are one behind the other."""
    return [Transposed(half) for half in split(rows[0], [rows[0].shape[2] // 2] * 2, axis=2)]


FAMILY = replace(
    qwen3vl.FAMILY,
    arch="qwen3vlmoe",
    architectures=("Qwen3VLMoeForConditionalGeneration", "Qwen3OmniMoeForConditionalGeneration"),
    classes={
        "qwen3_vl_moe_text": class_defaults(
            151936, 128000, 2048, 5632, 24, 16, 16, head_dim=head_width, num_experts=60, num_experts_per_tok=4,
            moe_intermediate_size=1408, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        "qwen3_omni_moe_text": class_defaults(
            3584, 32768, 2048, 18944, 28, 28, 4, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
            norm_topk_prob=True, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        ),
    },
    assumes={**qwen3moe.FAMILY.assumes, **scaled_to_one(True)},
    keys=(*qwen3moe.FAMILY.keys, qwen3vl.deepstack),
    variant=lambda family, c: replace(family, token_keys=(qwen3vl.turn_ends,))
    if "Omni" in str(c.raw.get("architectures")) else family,
    rules=(
        experts(_EXPERTS, down="down_proj", gate="gate_proj", up="up_proj"),
        *(Rule((_DOWN,), (f"{_EXPERTS}.down_proj{end}",), _turned) for end in ("", ".weight")),
        *(Rule((_GATE, _UP), (f"{_EXPERTS}.gate_up_proj{end}",), _turned_halves) for end in ("", ".weight")),
    ),
)  # fmt: skip
