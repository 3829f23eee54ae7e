"""Qwen 3 TTS: what encodes a speaker, what predicts the codes behind the first, and what makes sound of codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BadInput, InputMissing
from ...metadata import Metadata
from ...sources.folder import SPEECH
from ...sources.hf_config import TALKER, section
from ..config import Config
from ..rules import Rule
from ._qwen3tts_wave import DECODER, LAYER, WAVE, all_codes
from ._vision import projector

_PREDICTOR, _SPEAKER = "talker.code_predictor", "speaker_encoder"


def predictor(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section of the predictor of codes (BadInput where there is none)."""
    found = section(section(raw, TALKER), "code_predictor_config")
    if not found:
        raise BadInput("config.json has no 'code_predictor_config' of the talker, so there is no projector to write")
    return found


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes that all models have, for the speaker, and those of the predictor of codes."""
    if c.checkpoint is None or not any(name.startswith(f"{DECODER}.") for name in c.checkpoint.tensors):
        raise InputMissing(
            f"{c.folder}/{SPEECH}/model.safetensors is missing", "It makes sound of codes; download it with the model."
        )
    width = Config(section(c.raw, TALKER), {}, {}, c.checkpoint).hidden
    m.boolean("clip.has_audio_encoder", True)
    m.string("clip.audio.projector_type", "qwen3tts_spkenc")
    fixed = {
        "projection_dim": width, "num_mel_bins": 128, "block_count": 3, "embedding_length": 1536, "attention.head_count": 1,
        "feed_forward_length": 1536,
    }  # fmt: skip
    for key, number in fixed.items():
        m.u32(f"clip.audio.{key}", number)
    m.f32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    m.boolean("clip.has_gen_audio_encoder", True)
    m.string("clip.gen.audio.projector_type", "qwen3tts_gen")
    sizes = {
        "projection_dim": width, "embedding_length": c.hidden, "feed_forward_length": c.integer("intermediate_size"),
        "block_count": c.n_layers, "attention.head_count": c.n_heads, "attention.head_count_kv": c.n_kv_heads,
    }  # fmt: skip
    for key, number in sizes.items():
        m.u32(f"clip.gen.audio.{key}", number)
    m.f32("clip.gen.audio.attention.layer_norm_epsilon", c.real("rms_norm_eps"))


_CODE_LAYER = {theirs.removesuffix(".weight"): ours.removesuffix(".weight") for theirs, ours in LAYER.items()}
_BLOCK = f"{_SPEAKER}.blocks.{{bid}}"
_NAMES = {
    f"{_SPEAKER}.asp.conv": "a.asp_attn", f"{_SPEAKER}.asp.tdnn.conv": "a.asp_tdnn", f"{_SPEAKER}.fc": "mm.a.fc",
    f"{_SPEAKER}.mfa.conv": "a.conv_out", f"{_BLOCK}.conv": "a.conv1d.{bid}",
    f"{_BLOCK}.res2net_block.blocks.{{x}}.conv": "a.blk.{bid}.res2.{xid}",
    **{f"{_BLOCK}.se_block.conv{n}": f"a.blk.{{bid}}.se_conv{n}" for n in (1, 2)},
    **{f"{_BLOCK}.tdnn{n}.conv": f"a.blk.{{bid}}.conv_pw{n}" for n in (1, 2)},
    "talker.model.codec_embedding": "a.gen.code.out_embd", f"{_PREDICTOR}.model.norm": "a.gen.code.output_norm",
    f"{_PREDICTOR}.small_to_mtp_projection": "a.gen.code.proj_in",
    **{f"{_PREDICTOR}.model.layers.{{bid}}.{theirs}": f"a.gen.code.blk.{{bid}}.{ours}" for theirs, ours in _CODE_LAYER.items()},
    **{f"{_PREDICTOR}.model.layers.{{bid}}.self_attn.{p}_norm": f"a.gen.code.blk.{{bid}}.attn_{p}_norm" for p in "qk"},
}  # fmt: skip


def why_not(name: str) -> str | None:
    """What is neither of the speaker, nor of codes, nor of what makes sound of them."""
    own = (f"{_SPEAKER}.", f"{_PREDICTOR}.", "talker.model.codec_embedding.", f"{DECODER}.")
    return None if name.startswith(own) else "not part of the projector"


FAMILY = projector(
    ("qwen3tts_spkenc", "qwen3tts_gen"),
    ("Qwen3TTSForConditionalGeneration",),
    keys=(keys,),
    section=predictor,
    why_not=why_not,
    spelled=lambda name, _config: name,
    drops={"*._codebook.init*": "of training", "*.rotary_emb.inv_freq": "computed by runtimes"},
    rules=(
        *WAVE,
        Rule(("a.gen.code.embd.weight",), (f"{_PREDICTOR}.model.codec_embedding.{{x}}.weight",), all_codes),
        Rule(("a.gen.code.head.weight",), (f"{_PREDICTOR}.lm_head.{{x}}.weight",), all_codes),
    ),
    names=_NAMES,
    types={
        **dict.fromkeys((f"a.gen.wav.{part}.weight" for part in ("pre_conv", "dac.entry", "dac.post_conv")), "F16"),
        "*.up.blk.*.dwconv.weight": "F16", "*.dac.blk.*.conv1.weight": "F16", "*.dac.blk.*.conv2.weight": "F16",
        "*.up.blk.*.conv.weight": "F32", "*.dac.blk.*.conv.weight": "F32", "a.gen.code.blk.*.ffn_down.weight": "F32",
    },
)  # fmt: skip
