"""Qwen 3 Omni: the vision tower of Qwen 3 VL, of which some parts have other names, and a tower of sound in one file."""

from __future__ import annotations

from ...metadata import Metadata
from ..assumed import Assumed
from ..config import Config
from . import qwen3vl
from ._audio import WINDOWS, heard, whisper_beside
from ._sound_rows import one_pixel, positions
from ._vision import ears, gelu, kind, merge_size, projector, time_slices, tower, vision_section, within

#: names of a merger -> those of Qwen 3 VL
_MERGER = {".ln_q": ".norm", ".mlp.0": ".linear_fc1", ".mlp.2": ".linear_fc2"}


sound = whisper_beside("qwen3_omni_moe_audio_encoder")


def keys(m: Metadata, a: str, c: Config) -> None:
    """Both towers."""
    tower(m, c)
    ears(m, c, sound(c))
    heard(m, a, sound(c))
    gelu(m, a, c)
    merge_size(m, a, c)
    qwen3vl.features(m, a, c)
    kind("qwen3vl_merger", "vision.")(m, a, c)
    kind("qwen3a", "audio.")(m, a, c)


def spelled(name: str, config: Config) -> str:
    """``name`` as Qwen 3 VL has it."""
    name = name.removeprefix("thinker.").removeprefix("model.").replace(".merger_list.", ".deepstack_merger_list.")
    if "merger" in name:
        for theirs, ours in _MERGER.items():
            name = name.replace(theirs, ours)
    return qwen3vl.spelled(name, config)


FAMILY = projector(
    ("qwen3vl_merger", "qwen3a"),
    ("Qwen3OmniMoeForConditionalGeneration",),
    keys=(keys,),
    section=vision_section,
    classes={"qwen3_omni_moe_vision_encoder": qwen3vl.WITH_FEATURES},
    assumes={"hidden_act": Assumed(("gelu_pytorch_tanh", "gelu")), **WINDOWS},
    why_not=within("visual.", "audio_tower."),
    drops={"audio_tower.audio_bos_eos_token*": "not used"},
    spelled=spelled,
    rules=(positions(lambda c: sound(c).hidden), time_slices("visual.patch_embed.proj.weight")),
    names=qwen3vl.NAMES,
    transforms={"a.conv2d.*": one_pixel},
    types={"a.conv2d.*.weight": "F16", "a.conv_out.weight": "F16"},
)
