"""Pocket TTS: what encodes a voice, and what makes sound of the text model's output: a flow net and a decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import BadInput
from ...kit import squeezed
from ...metadata import Metadata
from ...rows import Rows
from ..config import Config
from ._vision import projector, thirds

#: width of a head in all models that were published
_HEAD = 64
_LAYER = "mimi.{side}_transformer.transformer.layers.{{bid}}"
_FIRST = "mimi.encoder_transformer.transformer.layers.0"
#: stages of the convolutions, whose numbers in a checkpoint follow from theirs
_STAGES = 3


def section(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The whole configuration, which was read from shapes."""
    return raw


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes of the encoder, by its tensors, and of the decoder, which are the same."""
    tensors = c.checkpoint.tensors if c.checkpoint is not None else {}
    if f"{_FIRST}.norm1.weight" not in tensors or f"{_FIRST}.linear1.weight" not in tensors:
        raise BadInput(
            f"{c.folder}: the encoder has no tensor '{_FIRST}.norm1.weight'", "Is this the whole checkpoint?"
        )
    start, end = "mimi.encoder_transformer.transformer.layers.", ".norm1.weight"
    width, ffn = tensors[f"{_FIRST}.norm1.weight"].shape[0], tensors[f"{_FIRST}.linear1.weight"].shape[0]
    numbers = {
        "projection_dim": c.hidden, "block_count": sum(n.startswith(start) and n.endswith(end) for n in tensors),
        "embedding_length": width, "feed_forward_length": ffn, "attention.head_count": width // _HEAD,
    }  # fmt: skip
    for has, where, kind in (("audio", "audio", "pockettts_spkenc"), ("gen_audio", "gen.audio", "pockettts_gen")):
        m.boolean(f"clip.has_{has}_encoder", True)
        m.string(f"clip.{where}.projector_type", kind)
        for key, number in numbers.items():
            m.u32(f"clip.{where}.{key}", number)
        m.f32(f"clip.{where}.attention.layer_norm_epsilon", 1e-5)
        if where == "audio":
            m.u32("clip.audio.num_mel_bins", 1)
    m.string("clip.gen.audio.model_variant", c.checkpoint.folder.resolve().name if c.checkpoint is not None else "")


def _of_layers() -> Iterator[tuple[str, str]]:
    parts = {
        "norm1": "ln1",
        "norm2": "ln2",
        "self_attn.out_proj": "attn_out",
        "linear1": "ffn_up",
        "linear2": "ffn_down",
    }
    for side, place in (("encoder", "a.blk"), ("decoder", "a.gen.wav.tfm.blk")):
        layer = _LAYER.format(side=side)
        for theirs, ours in parts.items():
            yield f"{layer}.{theirs}", f"{place}.{{bid}}.{ours}"
        for n in (1, 2):
            yield f"{layer}.layer_scale_{n}.scale", f"{place}.{{bid}}.ls{n}.weight"


def _of_convolutions() -> Iterator[tuple[str, str]]:
    last = 3 * _STAGES + 2
    for side, place, scale, residual, kind in (
        ("encoder", "a.seanet", 3, 1, "conv"), ("decoder", "a.gen.wav.seanet", 2, 3, "convtr"),
    ):  # fmt: skip
        model = f"mimi.{side}.model"
        yield f"{model}.0.conv", f"{place}.conv_in"
        yield f"{model}.{last}.conv", f"{place}.conv_out"
        for n in range(_STAGES):
            yield f"{model}.{scale + 3 * n}.{kind}", f"{place}.blk.{n}.scale_conv"
            for inner, number in ((1, 1), (3, 2)):
                yield f"{model}.{residual + 3 * n}.block.{inner}.conv", f"{place}.blk.{n}.res_conv{number}"


def _of_flow() -> Iterator[tuple[str, str]]:
    flow, place = "flow_lm.flow_net", "a.gen.flow"
    yield f"{flow}.input_proj", f"{place}.input_proj"
    yield f"{flow}.cond_embed", f"{place}.cond_embd"
    yield f"{flow}.final_layer.linear", f"{place}.final.proj"
    yield f"{flow}.final_layer.adaLN_modulation.1", f"{place}.final.ada"
    for theirs, ours in (("freqs", "freqs"), ("mlp.0", "up"), ("mlp.2", "down"), ("mlp.3.alpha", "norm")):
        yield f"{flow}.time_embed.{{bid}}.{theirs}", f"{place}.time.{{bid}}.{ours}"
    for theirs, ours in (("in_ln", "norm"), ("mlp.0", "up"), ("mlp.2", "down"), ("adaLN_modulation.1", "ada")):
        yield f"{flow}.res_blocks.{{bid}}.{theirs}", f"{place}.blk.{{bid}}.{ours}"


_NAMES = {
    "flow_lm.speaker_proj_weight": "a.speaker_proj.weight", "flow_lm.input_linear": "a.gen.input_linear",
    "flow_lm.emb_mean": "a.gen.emb_mean", "flow_lm.emb_std": "a.gen.emb_std", "flow_lm.out_eos": "a.gen.out_eos",
    "mimi.downsample.conv.conv": "a.downsample.conv", "mimi.upsample.convtr.convtr": "a.gen.wav.upsample",
    "mimi.quantizer.output_proj": "a.gen.wav.quant_out",
    **dict(_of_layers()), **dict(_of_convolutions()), **dict(_of_flow()),
}  # fmt: skip
#: parts of the text model
_OF_TEXT = (
    "flow_lm.transformer.",
    "flow_lm.out_norm.",
    "flow_lm.bos_emb",
    "flow_lm.bos_before_voice",
    "flow_lm.conditioner.",
)
#: parts of the codec that are of use
_OF_CODEC = (
    "mimi.downsample.", "mimi.upsample.", "mimi.quantizer.output_proj.", "mimi.encoder.model.", "mimi.decoder.model.",
    "mimi.encoder_transformer.", "mimi.decoder_transformer.",
)  # fmt: skip


def why_not(name: str) -> str | None:
    """Whether the text model has it, or nothing needs it."""
    if name.startswith(_OF_TEXT):
        return "of the text model"
    return None if name.startswith(("flow_lm.", *_OF_CODEC)) else "of training"


def flat(rows: Rows, _config: Config) -> Rows:
    """A convolution over one frame as the matrix that it is."""
    return squeezed(rows)


FAMILY = projector(
    ("pockettts_spkenc", "pockettts_gen"),
    ("PocketTTSModel",),
    keys=(keys,),
    section=section,
    why_not=why_not,
    spelled=lambda name, _config: name,
    names=_NAMES,
    rules=(
        *thirds(f"{_LAYER.format(side='encoder')}.self_attn.in_proj", "a.blk.{bid}.attn", (".weight",)),
        *thirds(f"{_LAYER.format(side='decoder')}.self_attn.in_proj", "a.gen.wav.tfm.blk.{bid}.attn", (".weight",)),
    ),
    transforms={"a.gen.wav.quant_out": flat},
    types={"*.seanet.*.weight": "F16", "a.downsample.conv.weight": "F16", "a.gen.wav.upsample.weight": "F16"},
)
