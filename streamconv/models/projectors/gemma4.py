"""Gemma 4's vision tower, and of the small models its audio tower, in one file."""

from __future__ import annotations

import re

from ...kit import SOFTPLUS, Mapped, Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..assumed import Assumed
from ..config import Config
from ..rules import SUFFIXES
from ._vision import at_least_a_vector, audio, convolution, ears, kind, projector, told, tower, vision_section, within

#: class defaults
_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16, "num_attention_heads": 12, "patch_size": 16,
}  # fmt: skip
_AUDIO = {"hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8}
#: tensors without a suffix that get one
_BARE = re.compile(r"(layer_scalar|position_embedding_table|per_dim(_key)?_scale)$")
#: what layers of quantized training clip to, each a number beside the weights
_BOUNDS = tuple(f".{where}put_{end}" for where in ("in", "out") for end in ("max", "min"))


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Both towers' sizes; runtimes choose the size of images by themselves."""
    tower(m, c)
    sound = audio(c, {"gemma4_audio": _AUDIO})
    if sound is not None:
        ears(m, c, sound, feed_forward_length=4 * sound.hidden)
    kinds(m, c, sound, "gemma4v", "gemma4a")


def kinds(m: Metadata, c: Config, sound: Config | None, seeing: str, hearing: str) -> None:
    """Which projector it is for images and, where it hears, for ``sound``, and the epsilons of their norms."""
    kind(seeing, "vision.")(m, "", c)
    m.f32("clip.vision.attention.layer_norm_epsilon", c.get("layer_norm_eps") or 1e-6)
    if sound is not None:
        kind(hearing, "audio.")(m, "", c)
        m.u32("clip.audio.num_mel_bins", sound.get("input_feat_size") or 128)
        m.f32("clip.audio.attention.layer_norm_epsilon", sound.get("layer_norm_eps") or 1e-6)


def spelled(name: str, _config: Config) -> str:
    """``name`` as the table has it: layers that are clipped are nested in another, some tensors have no suffix."""
    name = name.replace("model.vision_tower.encoder.", "vision_model.model.").replace(
        "model.audio_tower.", "conformer."
    )
    name = name.replace(".linear.", ".")
    return f"{name}.weight" if _BARE.search(name) else name


def softplus(rows: Rows, _config: Config) -> Rows:
    """log(1 + exp(x)), as runtimes multiply by it."""
    return Mapped(rows, SOFTPLUS)


def one_channel(rows: Rows, _config: Config) -> Rows:
    """A convolution of each channel by itself, without the axis of its one input."""
    channels, _one, width = rows.shape
    return Reshaped(rows, (channels, width))


#: what runtimes compute in the tower for sound
_OF_SOUND = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_logit_cap": 50, "attention_chunk_size": 12, "attention_context_left": 13,
    "attention_context_right": 0, "residual_weight": 0.5,
}  # fmt: skip
FAMILY = projector(
    ("gemma4v", "gemma4a"),
    ("Gemma4ForConditionalGeneration",),
    keys=(keys,),
    section=lambda raw: {**vision_section(raw), "image_size": 224},
    classes={"gemma4_vision": _VISION},
    assumes={
        "hidden_activation": Assumed(("gelu_pytorch_tanh",)),
        **told(rms_norm_eps=1e-6, pooling_kernel_size=3, **{f"audio_config__{key}": value for key, value in _OF_SOUND.items()}),
    },
    why_not=within("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio."),
    spelled=spelled,
    suffixes=(*SUFFIXES, *_BOUNDS),
    transforms={
        "v.patch_embd": convolution, "a.blk.*.per_dim*_scale": softplus, "a.blk.*.conv_dw": one_channel,
        **{f"*{bound}": at_least_a_vector for bound in _BOUNDS},
    },
    types={"a.blk.*.conv_dw.weight": "F32", "a.conv1d.*.weight": "F32", "a.input_projection.weight": "F32"},
)  # fmt: skip
