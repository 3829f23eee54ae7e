"""Qwen 2 Audio: Whisper's encoder and one projection."""

from __future__ import annotations

from ._audio import WHISPER, whisper

FAMILY = whisper("qwen2a", ("Qwen2AudioForConditionalGeneration",), classes={"qwen2_audio_encoder": WHISPER})
