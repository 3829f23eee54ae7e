"""Audio Flamingo 3: Whisper's encoder, whose first layers do not fit the range of float16, and two projections."""

from __future__ import annotations

from ..assumed import Assumed
from ._audio import WHISPER, of_root, whisper

FAMILY = whisper(
    "musicflamingo",
    ("AudioFlamingo3ForConditionalGeneration",),
    of_root(projector_hidden_act=Assumed(("gelu",))),
    convolutions="F32",
    classes={"audioflamingo3_encoder": WHISPER},
)
