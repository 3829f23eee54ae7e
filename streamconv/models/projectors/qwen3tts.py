"""Qwen 3 TTS: what encodes a speaker, what predicts the codes behind the first, and what makes sound of codes.

The last is a model of its own in the folder ``speech_tokenizer``, whose tensors come before others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import BadInput, InputMissing
from ...kit import EXP, Averaged, Function, Mapped, Reshaped
from ...metadata import Metadata
from ...rows import Floats, Rows
from ...sources.folder import SPEECH
from ...sources.hf_config import TALKER, section
from ..config import Config
from ..rules import Rule
from ._vision import projector

_CODES, _DECODER, _PREDICTOR, _SPEAKER = 15, f"{SPEECH}.decoder", "talker.code_predictor", "speaker_encoder"
_ENDS = ("weight", "bias")


def _inverse(x: Floats) -> Floats:
    found: Floats = np.float32(1) / (EXP.call(x) + np.float32(1e-9))
    return found


_INVERSE = Function("1/(exp+1e-9)", 1, _inverse)
#: ends of the names of what is not copied -> what it becomes
_FOLDED = {"alpha": EXP, "beta": _INVERSE}


def predictor(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The section of the predictor of codes (BadInput where there is none)."""
    found = section(section(raw, TALKER), "code_predictor_config")
    if not found:
        raise BadInput("config.json has no 'code_predictor_config' of the talker, so there is no projector to write")
    return found


def keys(m: Metadata, _arch: str, c: Config) -> None:
    """Sizes that all models have, for the speaker, and those of the predictor of codes."""
    if c.checkpoint is None or not any(name.startswith(f"{_DECODER}.") for name in c.checkpoint.tensors):
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


def folded(targets: Sequence[str]) -> Any:
    """Rows as they are, but where a wave is to be bent, the numbers that runtimes multiply by."""

    def make(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
        ends = [target.rpartition(".")[2] for target in targets]
        return [Mapped(r, _FOLDED[end]) if end in _FOLDED else r for r, end in zip(rows, ends, strict=True)]

    return make


def group(place: str, source: str, parts: Mapping[str, str]) -> Rule:
    """Tensors of one module, in this order; ``parts`` are ends of names in a checkpoint -> in GGUF."""
    targets = tuple(f"a.gen.wav.{place}{ours}" for ours in parts.values())
    return Rule(targets, tuple(f"{_DECODER}.{source}{theirs}" for theirs in parts), folded(targets), first=True)


def both(parts: Mapping[str, str], ends: Sequence[str] = _ENDS) -> dict[str, str]:
    """``parts``, each with weights and biases, or other ``ends``."""
    return {f"{theirs}.{end}": f"{ours}.{end}" for theirs, ours in parts.items() for end in ends}


def flat(rows: Sequence[Rows], _config: Config) -> Sequence[Rows]:
    """A convolution over one frame as a matrix."""
    return [Reshaped(rows[0], rows[0].shape[:-1])]


def books(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """What codes stand for, of which sums and counts were kept in training."""
    sums, counts = rows
    if len(sums.shape) == 3:
        all_codes([sums], c)
    n_rows = int(np.prod(counts.shape))
    return [Averaged(sums, Reshaped(counts, (n_rows, 1)), 1e-5)]


def all_codes(rows: Sequence[Rows], c: Config) -> Sequence[Rows]:
    """Those of each code behind the first, stacked (BadInput: not of 15)."""
    if rows[0].shape[0] != _CODES:
        raise BadInput(f"{c.folder}: there are {rows[0].shape[0]} codes behind the first, runtimes compute {_CODES}")
    return rows


def _quantizer(part: str, layer: str) -> list[Rule]:
    here, book = f"{_DECODER}.quantizer.rvq_{part}", f"a.gen.wav.quant.{part}"
    sources = tuple(f"{here}.vq.layers.{layer}._codebook.{name}" for name in ("embedding_sum", "cluster_usage"))
    return [
        Rule((f"{book}.in_proj.weight",), (f"{here}.input_proj.weight",), flat, first=True),
        Rule((f"{book}.out_proj.weight",), (f"{here}.output_proj.weight",), flat, first=True),
        Rule((f"{book}.codebook.weight",), sources, books, first=True),
    ]


_LAYER = {
    "input_layernorm.weight": "ln1.weight",
    **{f"self_attn.{part}_proj.weight": f"attn_{ours}.weight" for part, ours in zip("qkvo", ("q", "k", "v", "out"), strict=True)},
    "self_attn_layer_scale.scale": "ls1.weight", "post_attention_layernorm.weight": "ln2.weight",
    **{f"mlp.{part}_proj.weight": f"ffn_{part}.weight" for part in ("gate", "up", "down")},
    "mlp_layer_scale.scale": "ls2.weight",
}  # fmt: skip
_SNAKE = ("alpha", "beta")


def _stage(n: int) -> Rule:
    parts = both({"0": "snake"}, _SNAKE) | both({"1.conv": "conv"})
    for unit in range(3):
        for k in (1, 2):
            parts |= both({f"{unit + 2}.act{k}": f"res.{unit}.act{k}"}, _SNAKE)
            parts |= both({f"{unit + 2}.conv{k}.conv": f"res.{unit}.conv{k}"})
    return group(f"dac.blk.{n}.", f"decoder.{n + 1}.block.", parts)


_WAVE = (
    *_quantizer("first", "0"),
    *_quantizer("rest", "{x}"),
    group("", "", both({"pre_conv.conv": "pre_conv"})),
    group("tfm.", "pre_transformer.", both({"input_proj": "in_proj", "output_proj": "out_proj"})),
    group("tfm.", "pre_transformer.", {"norm.weight": "output_norm.weight"}),
    group("tfm.blk.{bid}.", "pre_transformer.layers.{bid}.", _LAYER),
    group(
        "up.blk.{bid}.", "upsample.{bid}.",
        both({"0.conv": "conv", "1.dwconv.conv": "dwconv", "1.norm": "norm", "1.pwconv1": "pw1", "1.pwconv2": "pw2"})
        | {"1.gamma": "gamma"},
    ),
    group("dac.", "decoder.", both({"0.conv": "entry"})),
    *(_stage(n) for n in range(4)),
    group("dac.", "decoder.", both({"5": "post_snake"}, _SNAKE)),
    group("dac.", "decoder.", both({"6.conv": "post_conv"})),
)  # fmt: skip
_CODE_LAYER = {theirs.removesuffix(".weight"): ours.removesuffix(".weight") for theirs, ours in _LAYER.items()}
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
    own = (f"{_SPEAKER}.", f"{_PREDICTOR}.", "talker.model.codec_embedding.", f"{_DECODER}.")
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
        *_WAVE,
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
