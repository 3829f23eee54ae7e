"""MERaLiON 2: Whisper's encoder and a gated projection of stacked frames."""

from __future__ import annotations

from ._audio import stacked, whisper
from ._vision import within

_PARTS = ("mlp_adapter.0", "gate_proj", "pool_proj", "out_proj")

FAMILY = whisper(
    "meralion",
    ("MERaLiON2ForConditionalGeneration",),
    stacked(lambda c: c.raw.get("speech_mlp_scale_factor", 15)),
    sections=("speech_config",),
    why_not=within("speech_encoder.", "speech_audio_adapter.", "ln_speech."),
    spelled=lambda name, _config: name.replace("speech_encoder.", "audio_tower."),
    names={
        "ln_speech": "mm.a.norm_pre",
        **{f"speech_audio_adapter.{part}": f"mm.a.mlp.{n}" for n, part in enumerate(_PARTS)},
    },
)
