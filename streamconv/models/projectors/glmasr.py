"""GLM-ASR: Whisper's encoder with rotated places, and vectors that stand before and behind sound."""

from __future__ import annotations

from collections.abc import Sequence

from ...kit import Reshaped, split
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..rules import Rule
from ._audio import of_root, stacked, whisper
from ._vision import within


def ends(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """The two rows of a table as vectors."""
    return [Reshaped(row, row.shape[1:]) for row in split(rows[0], [1, 1])]


FAMILY = whisper(
    "glma",
    ("GlmasrModel",),
    stacked(lambda c: c.raw.get("merge_factor")),
    of_root(adapter_type=Assumed(("mlp",)), mlp_adapter_act=Assumed(("gelu",)), use_rope=Assumed((True,))),
    sections=("whisper_config", "audio_config"),
    why_not=within("audio_encoder."),
    drops={"audio_encoder.proj.*": "not used, the projection is another"},
    spelled=lambda name, _config: name.replace("audio_encoder.whisper.", "audio_tower."),
    names={
        "audio_encoder.layer_norm": "mm.a.norm_pre", "audio_encoder.adapting.0": "mm.a.mlp.1",
        "audio_encoder.adapting.2": "mm.a.mlp.2",
    },
    rules=(Rule(("v.boi", "v.eoi"), ("audio_encoder.audio_bos_eos_token.weight",), ends),),
)  # fmt: skip
