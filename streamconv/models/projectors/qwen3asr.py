"""Qwen 3 ASR: the tower of sound of Qwen 3 Omni, alone."""

from __future__ import annotations

from ._audio import OF_WHISPER, WHISPER, WINDOWS, heard, hearing, sound_section, spelled
from ._sound_rows import one_pixel, positions
from ._vision import kind, projector, within

#: class defaults
_SOUND = {
    **WHISPER, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
}  # fmt: skip

FAMILY = projector(
    ("qwen3a",),
    ("Qwen3ASRForConditionalGeneration",),
    keys=(hearing, heard, kind("qwen3a", "audio.")),
    section=sound_section("audio_config"),
    classes={"qwen3_asr_encoder": _SOUND, "qwen3_asr_audio_encoder": WHISPER},
    assumes={**OF_WHISPER, **WINDOWS},
    why_not=within("audio_tower."),
    drops={"audio_tower.audio_bos_eos_token*": "not used"},
    spelled=spelled,
    rules=(positions(),),
    transforms={"a.conv2d.*": one_pixel},
    types={"a.conv2d.*.weight": "F16", "a.conv_out.weight": "F16"},
)
