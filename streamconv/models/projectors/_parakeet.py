"""The encoder of sounds of Parakeet: a Conformer, as projectors hold it."""

from __future__ import annotations

from ...kit import Reshaped
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ._vision import ears

_LAYER = "sound_encoder.encoder.layers.{bid}"
_BLOCK = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_out",
    "self_attn.relative_k_proj": "linear_pos", "self_attn.bias_u": "pos_bias_u", "self_attn.bias_v": "pos_bias_v",
    "norm_self_att": "ln1", "norm_out": "ln2", "norm_conv": "norm_conv",
    "norm_feed_forward1": "ffn_norm", "feed_forward1.linear1": "ffn_up", "feed_forward1.linear2": "ffn_down",
    "norm_feed_forward2": "ffn_norm_1", "feed_forward2.linear1": "ffn_up_1", "feed_forward2.linear2": "ffn_down_1",
    "conv.depthwise_conv": "conv_dw", "conv.pointwise_conv1": "conv_pw1", "conv.pointwise_conv2": "conv_pw2",
    "conv.norm": "conv_norm", "conv.norm.running_mean": "conv_norm_mean", "conv.norm.running_var": "conv_norm_var",
}  # fmt: skip
#: name in a checkpoint -> GGUF name
NAMES = {
    **{f"{_LAYER}.{theirs}": f"a.blk.{{bid}}.{ours}" for theirs, ours in _BLOCK.items()},
    "sound_encoder.encoder.subsampling.layers.{bid}": "a.conv1d.{bid}",
    "sound_encoder.encoder.subsampling.linear": "a.pre_encode.out",
    "sound_encoder.encoder.feature_extractor.featurizer.fb": "a.mel_filters",
    "sound_encoder.encoder.feature_extractor.featurizer.window": "a.window",
    "sound_projection.norm": "mm.a.norm_pre",
    **{f"sound_projection.linear{n}": f"mm.a.mlp.{n}" for n in range(16)},
}
#: types that runtimes expect
TYPES = {f"{start}*{part}*": "F32" for start in ("a.", "mm.a.") for part in ("bias", "norm", "conv*weight")}


def sound_keys(m: Metadata, c: Config, sound: Config) -> None:
    """Sizes of the encoder, and how sounds are cut."""
    ears(m, c, sound)
    m.u32("clip.audio.num_mel_bins", sound.integer("num_mel_bins"))
    m.f32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    m.u32("clip.audio.subsampling_factor", sound.integer("subsampling_factor"))
    m.u32("clip.audio.conv_kernel_size", sound.integer("conv_kernel_size"))


def over_channels(rows: Rows, _config: Config) -> Rows:
    """Weights [channels, 1, kernel] as [1, 1, channels, kernel]."""
    if len(rows.shape) != 3:
        return rows
    return Reshaped(rows, (1, rows.shape[1], rows.shape[0], rows.shape[2]))


def pointwise(rows: Rows, config: Config) -> Rows:
    """Weights without their kernel of one number; biases as ``of_channels`` has them."""
    if len(rows.shape) == 3 and rows.shape[2] == 1:
        return Reshaped(rows, rows.shape[:2])
    return of_channels(rows, config)


def of_channels(rows: Rows, _config: Config) -> Rows:
    """Biases as [1, channels, 1, 1]."""
    return Reshaped(rows, (1, rows.shape[0], 1, 1)) if len(rows.shape) == 1 else rows


TRANSFORMS = {
    "a.blk.*.conv_dw": over_channels, "a.blk.*.conv_pw1": pointwise, "a.blk.*.conv_pw2": pointwise, "a.conv1d.*": of_channels,
}  # fmt: skip
