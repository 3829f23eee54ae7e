"""Granite Speech: a conformer, whose norms over batches are folded, and a Q-Former that reads windows of its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import BadInput
from ...kit import split
from ...metadata import Metadata
from ...rows import Rows
from ...sources.hf_config import section
from ..assumed import Assumed
from ..config import Config, normalise
from ..rules import Rule
from ._audio import insist
from ._sound_rows import batch_norm, squeezed_after
from ._vision import ears, kind, projector, told, within

#: class defaults
_ENCODER = {
    "input_dim": 160, "num_layers": 10, "hidden_dim": 1024, "feedforward_mult": 4, "num_heads": 8, "context_size": 200,
    "max_pos_emb": 512, "conv_kernel_size": 15,
}  # fmt: skip
_ROOT = {"window_size": 15, "downsample_rate": 5}
_QFORMER = {"num_attention_heads": 12, "encoder_hidden_size": 1408}
_LAYER = "encoder.layers.{bid}"


def encoder(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """``encoder_config`` of config.json (BadInput where there is none)."""
    found = raw.get("encoder_config")
    if not isinstance(found, Mapping):
        raise BadInput("config.json has no 'encoder_config', so there is no projector to write")
    return found


def keys(m: Metadata, a: str, c: Config) -> None:
    """The conformer, the windows, and the Q-Former."""
    width, heads = c.integer("hidden_dim"), c.integer("num_heads")
    root, qformer = normalise({**_ROOT, **c.raw}, {}, c.checkpoint), section(c.raw, "projector_config")
    qformer = {**_QFORMER, **{key: value for key, value in qformer.items() if value is not None}}
    insist(c, qformer, {"cross_attention_frequency": Assumed((1,)), "hidden_act": Assumed(("gelu",))})
    ffn = width * c.integer("feedforward_mult")
    ears(
        m, c, c, embedding_length=width, feed_forward_length=ffn, block_count=c.integer("num_layers"), head_count=heads
    )
    kind("granite_speech")(m, a, c)
    m.u32("clip.audio.num_mel_bins", c.integer("input_dim"))
    m.f32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    for key, name in (("chunk_size", "context_size"), ("conv_kernel_size",) * 2, ("max_pos_emb",) * 2):
        m.u32(f"clip.audio.{key}", c.integer(name))
    for name in ("window_size", "downsample_rate"):
        m.u32(f"clip.audio.projector.{name}", root.integer(name))
    m.u32("clip.audio.projector.head_count", Config(qformer, {}, {}, c.checkpoint).integer("num_attention_heads"))
    layers = c.get("cat_hidden_layers") if a_is_plus(c) else None
    if layers:
        m.array("clip.audio.feature_layer", "INT32", list(layers))
        if qformer["encoder_hidden_size"] != width * (len(layers) + 1):
            raise BadInput(
                f"{c.place}: 'encoder_hidden_size' is {qformer['encoder_hidden_size']}, but {len(layers)} layers beside the "
                f"last make {width * (len(layers) + 1)} features"
            )


def a_is_plus(c: Config) -> bool:
    """Whether features of inner layers are read too."""
    return "GraniteSpeechPlusForConditionalGeneration" in (c.raw.get("architectures") or ())


def halves(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """Keys and values."""
    return split(rows[0], [rows[0].shape[0] // 2] * 2)


FAMILY = projector(
    ("granite_speech",),
    ("GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration"),
    keys=(keys,),
    section=encoder,
    classes={"granite_speech_encoder": _ENCODER, "granite_speech_plus_encoder": _ENCODER},
    assumes={"dim_head": Assumed(lambda _, c: (c.integer("hidden_dim") // max(c.integer("num_heads"), 1),)),
             **told(projector_config__num_hidden_layers=2)},
    why_not=within("encoder.", "projector."),
    drops={"*attention_dists*": "computed by runtimes", "*.num_batches_tracked": "of training"},
    rules=(
        batch_norm(f"{_LAYER}.conv.batch_norm", "a.blk.{bid}.conv_norm_var"),
        Rule(
            ("a.blk.{bid}.attn_k.weight", "a.blk.{bid}.attn_v.weight"), (f"{_LAYER}.attn.to_kv.weight",), halves
        ),
    ),
    names={
        "encoder.input_linear": "a.input_projection", "encoder.out": "a.enc_ctc_out", "encoder.out_mid": "a.enc_ctc_out_mid",
    },
    transforms={"a.blk.*conv_pw*": squeezed_after(2), "a.blk.*conv_dw": squeezed_after(1)},
    types={"a.blk.*.conv_*.weight": "F32"},
)  # fmt: skip
