"""Gemma 3n's towers in one file: MobileNet for images, whose blocks have two numbers, and a conformer for sound."""

from __future__ import annotations

from ...errors import BadInput
from ...kit import Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ._vision import audio, ears, kind, processor, projector, sizes, text, within

_BLOCKS = "model.vision_tower.timm_model.blocks.{bid}.{x}."
#: of a block; none gets another name
_PARTS = (
    "conv_exp", "bn1", "conv_pwl", "bn2", "dw_start.conv", "dw_start.bn", "dw_mid.conv", "dw_mid.bn", "pw_exp.conv", "pw_exp.bn",
    "pw_proj.conv", "pw_proj.bn", "layer_scale.gamma", "attn.query.proj", "attn.key.proj", "attn.value.proj", "attn.output.proj",
    "attn.key.down_conv", "attn.key.norm", "attn.value.down_conv", "attn.value.norm", "norm",
)  # fmt: skip
#: what runtimes ask for and do not use
_BLOCK_COUNT = 128
_AUDIO = {"hidden_size": 1536, "conf_num_attention_heads": 8, "conf_num_hidden_layers": 12, "input_feat_size": 128}


def keys(m: Metadata, a: str, c: Config) -> None:
    """Both towers; the image processor says how large images are, and how many tokens they become."""
    sound = audio(c, {"gemma3n_audio": _AUDIO})
    if sound is None:
        raise BadInput(f"{c.place} has no 'audio_config', so there is no projector to write")
    said = processor(c)
    size = (said.get("size") or {"height": 768})["height"]
    patch = size // said.get("image_seq_length", 256)
    m.boolean("clip.has_vision_encoder", True)
    m.u32("clip.vision.projection_dim", text(c).hidden)
    ffn, heads = 4 * (c.get("intermediate_size") or 2048), c.get("num_attention_heads") or 8
    sizes(m, c, image_size=size, patch_size=patch, feed_forward_length=ffn, block_count=_BLOCK_COUNT, head_count=heads)
    m.array("clip.vision.image_mean", "FLOAT32", [0.0] * 3)
    m.array("clip.vision.image_std", "FLOAT32", [1.0] * 3)
    ears(
        m, c, sound, feed_forward_length=sound.get("intermediate_size") or 6144,
        block_count=sound.integer("conf_num_hidden_layers"), head_count=sound.integer("conf_num_attention_heads"),
    )  # fmt: skip
    kind("gemma3nv", "vision.")(m, a, c)
    m.f32("clip.vision.attention.layer_norm_epsilon", c.get("layer_norm_eps") or 1e-6)
    kind("gemma3na", "audio.")(m, a, c)
    m.u32("clip.audio.num_mel_bins", sound.integer("input_feat_size"))
    m.f32("clip.audio.attention.layer_norm_epsilon", 1e-5)


def per_channel(rows: Rows, _config: Config) -> Rows:
    """Biases of a convolution as [1, channels, 1, 1]; its weights as they are."""
    return Reshaped(rows, (1, rows.shape[0], 1, 1)) if len(rows.shape) == 1 else rows


FAMILY = projector(
    ("gemma3nv", "gemma3na"),
    ("Gemma3nForConditionalGeneration",),
    keys=(keys,),
    #: class default
    classes={"gemma3n_vision": {"hidden_size": 2048}},
    why_not=within("vision_tower.", "embed_vision.", "audio_tower.", "embed_audio."),
    spelled=lambda name, _config: name.replace("model.audio_tower.conformer.", "conformer.layers."),
    names={
        **{f"{_BLOCKS}{part}": f"v.blk.{{bid}}.{{xid}}.{part}" for part in _PARTS},
        **{
            f"model.audio_tower.subsample_conv_projection.conv_{n}.norm": f"a.conv1d.{n}.norm" for n in range(2)
        },
    },
    transforms={"v.conv_stem.conv": per_channel},
    types={
        "a.pre_encode.out.weight": "F16", "v.conv_stem.*": "F32", "a.blk.*.conv_dw.weight": "F32", "a.conv1d.*.weight": "F32",
    },
)  # fmt: skip
