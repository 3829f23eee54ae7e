"""Voxtral: Whisper's encoder, four frames of which become one token."""

from __future__ import annotations

from ..assumed import Assumed
from ._audio import WHISPER, of_root, stacked, whisper

FAMILY = whisper(
    "voxtral",
    ("VoxtralForConditionalGeneration",),
    stacked(lambda _: 4),
    of_root(projector_hidden_act=Assumed(("gelu",))),
    classes={"voxtral_encoder": WHISPER},
)
